"""The verbs `plan` and `apply` on an ONNX file: the same spec, an ONNX file in, an ONNX file out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sesurgery import planner
from sesurgery.artifacts import locked
from sesurgery.diagnostics import SesurgeryError, fail, located
from sesurgery.networks.onnx_cost import cost
from sesurgery.networks.run_files import WEIGHTS
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.pipeline.plan import Planned, added, costs_or_mistakes
from sesurgery.pipeline.specs import files_of
from sesurgery.pipeline.workspace import Workspace
from sesurgery.spec import Spec
from sesurgery.spec.model import OnnxModel
from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon
from sesurgery.workspace import OnnxDetails, OnnxManifest, describe, relative, require_intact
from sesurgery.workspace.targets import claim


@dataclass(frozen=True)
class AppliedOnnx:
    """A changed ONNX file, the plan that was carried out, and what else had to be done to the file."""

    path: Path
    planned: Planned
    notes: tuple[str, ...]


def plan_onnx(spec: Spec, file: Path | None = None) -> Planned:
    """Plan a spec on an ONNX file, by default the spec's own; raises SpecError holding every mistake."""
    try:
        model = onnx_io.load(file or source_file(spec), weights=False)
        surgeon = OnnxSurgeon(spec.input.shape)
        sight = surgeon.look(model)
        before = cost(model, spec.input.shape)
    except SesurgeryError as error:
        own = spec.span("model", "name") if isinstance(spec.model, OnnxModel) and file is None else None
        places = {"SE304": spec.span("input", "shape"), "SE402": own, "SE602": own}
        raise located(error, places) from error
    made = planner.plan(spec, sight.view)
    sites = costs_or_mistakes(spec, made)
    after = cost(surgeon.apply(model, made), spec.input.shape) if made.removals else added(before, sites)
    return Planned(spec, model, sight.view, sight.leaves, made, before, sites, after)


def apply_onnx(
    spec: Spec,
    workspace: Workspace,
    origin: str,
    *,
    file: Path | None = None,
    out: Path | None = None,
    weights: Path | None = None,
    force: bool = False,
) -> AppliedOnnx:
    """Change an ONNX file (default: the spec's own) and write the result, by default as export/NAME.onnx.

    The blocks' values come from the spec's seed, or from the run in the folder `weights`, by module path. Raises SE405
    where the result would lie on a file that it is made from, or, without `force`, on somebody else's.
    """
    source = file or source_file(spec)
    target = out or workspace.exports / f"{spec.name}.onnx"
    if source.is_file():
        needs = (*onnx_io.files(source), *files_of(spec), *((weights / WEIGHTS,) if weights else ()))
        claim(target, needs=needs, beside=(onnx_io.data_path(target),), force=force)
    planned = plan_onnx(spec, file)
    model = planned.network
    if not isinstance(model, onnx.ModelProto):
        raise TypeError(type(model).__name__)
    values = _values(weights) if weights is not None else None
    surgeon = OnnxSurgeon(spec.input.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.train.seed)
        changed = surgeon.apply(model, planned.plan, values)
    notes = surgeon.notes(model, changed)
    command = f"sesurgery apply {origin}" + (f" --onnx {file.as_posix()}" if file else "")
    command += f" -o {out.as_posix()}" if out else ""
    command += f" --weights {weights.as_posix()}" if weights else ""
    with locked(target.parent):
        onnx_io.save(changed, target)
        describe(
            target,
            OnnxManifest,
            target.stem,
            command,
            parents=(source, *((weights / WEIGHTS,) if weights else ())),
            beside=onnx_io.beside(target),
            spec_digest=spec.digest,
            plan_digest=planned.plan.digest,
            details=OnnxDetails(
                spec=relative(origin, target),
                sites=len(planned.plan.sites),
                removals=len(planned.plan.removals),
                nodes=len(changed.graph.node),
                notes=notes,
            ),
        )
    return AppliedOnnx(target, planned, notes)


def source_file(spec: Spec) -> Path:
    """The ONNX file that a spec names; raises SE302 where its network is another kind."""
    if not isinstance(spec.model, OnnxModel):
        text = f"the spec's network comes from {spec.model.source}, not from an ONNX file"
        raise fail("SE302", text, "name the file with --onnx", span=spec.span("model", "source"))
    return spec.folder / spec.model.name


def _values(run: Path) -> dict[str, np.ndarray]:
    require_intact(run / WEIGHTS)
    try:
        values: dict[str, np.ndarray] = load_file(run / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise fail("SE401", f"{run / WEIGHTS} holds no weights: {error}", "make the run again") from error
    return values
