"""The verb `apply`: carry the plan out, and write a run, or a changed ONNX file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import nn

from sesurgery.artifacts import locked
from sesurgery.diagnostics import Diagnostic, SesurgeryError, fail
from sesurgery.networks import checkpoint
from sesurgery.networks.opening import files_of, open_file, source_file
from sesurgery.networks.weights import Taken, take
from sesurgery.pipeline.plan import NetworkPlan, carry_out, plan, plan_on
from sesurgery.planner import Plan
from sesurgery.reports import results
from sesurgery.spec import Spec
from sesurgery.talk import Silent, Talk
from sesurgery.workspace import (
    OnnxDetails,
    OnnxManifest,
    Provenance,
    RunDetails,
    RunManifest,
    describe,
    relative,
    require_intact,
    run_files,
)
from sesurgery.workspace.details import Parent
from sesurgery.workspace.folders import Workspace
from sesurgery.workspace.targets import claim

NO_RUN = (
    "a network in an ONNX file has no run: it cannot be trained",
    "write a changed file with `sesurgery apply SPEC -o OUT.onnx`, and `sesurgery build-engine OUT.onnx`",
)
"""Why a file has no run, and what to do instead."""


@dataclass(frozen=True)
class NewRun:
    """A run as it was made: its folder, its changed network in training mode, and the plan that was carried out.

    `taken` is what it took of the weights of another run, None where it took none.
    """

    folder: Path
    network: nn.Module
    planned: NetworkPlan
    taken: Taken | None = None


@dataclass(frozen=True)
class ChangedFile:
    """A changed ONNX file, the plan that was carried out, and what else had to be done to the file."""

    path: Path
    planned: NetworkPlan
    notes: tuple[str, ...]


def apply(spec: Spec, workspace: Workspace, origin: str, weights: Path | None = None) -> NewRun:
    """Insert the blocks, prove that they run, and write a run; `origin` is the spec as the user named it.

    `weights` is the folder of the run whose values the network begins with, by key; what that one lacks begins as
    without. Raises SE402 if it is no run, and SE401 if its weights do not fit.
    """
    planned = plan(spec)
    planned.network.require_module(*NO_RUN)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.train.seed)
        try:
            planned, changed = carry_out(planned)
        except SesurgeryError as error:
            raise _at_its_rule(error, spec, planned.plan) from error
    network = changed.require_module(*NO_RUN)
    source = None if weights is None else weights / run_files.WEIGHTS
    began = None if source is None else require_intact(source, RunManifest).sha256
    taken = None if source is None else take(network, source)
    # Two processes at once must not choose one folder.
    with locked(workspace.runs):
        folder = workspace.fresh_run(spec)
        details = RunDetails(
            spec=relative(origin, folder / run_files.WEIGHTS),
            sites=len(planned.sites),
            params_before=planned.before.params,
            params_after=planned.after.params,
            macs_before=planned.before.macs,
            macs_after=planned.after.macs,
            new_head=() if planned.network.head is None else planned.network.head.layers,
        )
        named = ""
        if source is not None and began is not None:
            parent = Parent(path=relative(source, folder / run_files.WEIGHTS), sha256=began)
            details = details.model_copy(update={"began": parent})
            named = f" --weights {source.parent.as_posix()}"
        checkpoint.save(folder, network, spec, planned.plan, f"sesurgery apply {origin}{named}", details)
        results.write_network(folder, planned)
    return NewRun(folder, network, planned, taken)


@dataclass(frozen=True)
class FileRequest:
    """A changed ONNX file that is asked for; `origin` is the spec as the user named it.

    `file` is changed, by default the spec's own. `weights` is the folder of the run that the blocks' values come from,
    by module path; without it they come from the spec's seed. Without `force` only a file of ours is written over.
    `talk` is told how far the blocks are.
    """

    spec: Spec
    workspace: Workspace
    origin: str
    file: Path | None = None
    out: Path | None = None
    weights: Path | None = None
    force: bool = False
    talk: Talk = field(default_factory=Silent)

    @property
    def target(self) -> Path:
        """Where the changed file lies, by default export/NAME.onnx."""
        return self.out or self.workspace.exports / f"{self.spec.name}.onnx"

    @property
    def parents(self) -> tuple[Path, ...]:
        """What it is made from; raises SE302 if there is no file to change."""
        source = self.file or source_file(self.spec)
        return source, *((self.weights / run_files.WEIGHTS,) if self.weights else ())

    @property
    def command(self) -> str:
        """The command line that writes it again."""
        given = {"--onnx": self.file, "-o": self.out, "--weights": self.weights}
        options = [f" {name} {path.as_posix()}" for name, path in given.items() if path]
        return f"sesurgery apply {self.origin}" + "".join(options)


def apply_onnx(request: FileRequest) -> ChangedFile:
    """Change an ONNX file by a plan, prove that the blocks run, and write the result.

    Raises SE405 if the result would replace a file that it is made from or, without `force`, a file not
    written by this program.
    """
    from sesurgery.onnxgraph import io as onnx_io

    spec, target, (source, *others) = request.spec, request.target, request.parents
    if source.is_file():
        needs = (*onnx_io.files(source), *files_of(spec), *others)
        claim(target, needs=needs, beside=(onnx_io.data_path(target),), force=request.force)
    network = open_file(spec, spec.input.shape, request.file)
    network = replace(network, told=lambda done, total: request.talk.progress("making blocks", done, total))
    planned = plan_on(spec, network)
    values = _values(request.weights) if request.weights is not None else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.train.seed)
        changed = network.apply(planned.plan, values)
    notes = network.notes(changed)
    with locked(target.parent):
        onnx_io.save(changed.model, target)
        describe(
            target,
            Provenance(
                OnnxManifest,
                target.stem,
                request.command,
                parents=request.parents,
                beside=onnx_io.beside(target),
                spec_digest=spec.digest,
                plan_digest=planned.plan.digest,
                details=OnnxDetails(
                    spec=relative(request.origin, target),
                    sites=len(planned.plan.sites),
                    removals=len(planned.plan.removals),
                    nodes=len(changed.model.graph.node),
                    notes=notes,
                ),
            ),
        )
    return ChangedFile(target, planned, notes)


def _values(run: Path) -> dict[str, np.ndarray]:
    require_intact(run / run_files.WEIGHTS)
    try:
        values: dict[str, np.ndarray] = load_file(run / run_files.WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise fail("SE401", f"{run / run_files.WEIGHTS} holds no weights: {error}", "make the run again") from error
    return values


def _at_its_rule(error: SesurgeryError, spec: Spec, plan: Plan) -> SesurgeryError:
    """The surgeon's errors about sites, each at the rule in the spec that made the site."""
    rules = {site.key: plan.rules.index(site.rule) for site in plan.sites}

    def placed(item: Diagnostic) -> Diagnostic:
        if item.span or item.site not in rules:
            return item
        return replace(item, span=spec.span("surgery", rules[item.site], "insert"))

    return type(error)([placed(item) for item in error.diagnostics])
