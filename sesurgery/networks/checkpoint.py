"""A run on disk: the spec, the plan and a state dict. Loading replays the plan; no module is ever pickled.

runs/x/spec.yaml  plan.json  weights.safetensors  weights.safetensors.manifest.json
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sesurgery import planner, temporaries
from sesurgery.artifacts import digest_text, locked, write_text
from sesurgery.blocks import BLOCKS
from sesurgery.diagnostics import fail
from sesurgery.networks import run_code
from sesurgery.planner import Plan
from sesurgery.spec import Catalogs, Spec, load
from sesurgery.workspace import Provenance, RunDetails, RunManifest, describe, place, read_manifest, require_intact
from sesurgery.workspace.run_files import PLAN as PLAN
from sesurgery.workspace.run_files import SPEC as SPEC
from sesurgery.workspace.run_files import WEIGHTS as WEIGHTS

if TYPE_CHECKING:
    from torch import nn

_LAST: dict[tuple[object, ...], nn.Module] = {}
"""The network that was replayed last: tracing it and proving its blocks takes seconds, and verbs ask for it in turn."""


@dataclass(frozen=True)
class Run:
    """What a run folder holds: `network` is the changed network with the run's weights, in eval mode."""

    folder: Path
    spec: Spec
    plan: Plan
    network: nn.Module
    manifest: RunManifest

    @property
    def beside(self) -> Path | None:
        """The folder of the spec that the run was made from: a python factory may lie there."""
        return _beside(self.folder, self.manifest)


def save(folder: Path, network: nn.Module, spec: Spec, plan: Plan, command: str, details: RunDetails) -> RunManifest:
    """Write a run; `details.spec` is relative to its folder.

    Ended at any moment, it leaves the run as it was before or as it is now, and never half of each.
    """
    from safetensors.torch import save_file

    weights = folder / WEIGHTS
    with locked(folder), temporaries.folder(weights) as aside:
        write_text(folder / SPEC, spec.text())
        write_text(folder / PLAN, plan.to_json())
        # Own storage for every tensor: the format refuses tensors that share memory (tied weights).
        state = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
        save_file(state, aside / WEIGHTS, metadata={"format": "pt"})
        beside = None if details.spec is None else (folder / details.spec).parent
        provenance = Provenance(
            RunManifest,
            spec.name,
            command,
            parents=(folder / SPEC, folder / PLAN),
            known=() if details.began is None else (details.began,),
            # The spec's own, except in a run that an earlier version has made.
            spec_digest=plan.spec_digest,
            plan_digest=plan.digest,
            details=details.model_copy(update={"code": run_code.placed(spec, beside)}),
        )
        manifest = describe(weights, provenance, written=aside / WEIGHTS)
        place(aside / WEIGHTS, weights)
        return manifest


def read_spec(folder: Path, catalogs: Catalogs) -> Spec:
    """The spec of a run; raises SE402 if the folder is not a run, and SE401 if the spec is not the run's.

    Raises SE409 if it names code that the user has not agreed to run: every use of a run begins here.
    """
    if not (folder / WEIGHTS).is_file():
        raise fail("SE402", f"{folder} is not a run: it holds no {WEIGHTS}", "make one with `sesurgery apply SPEC`")
    manifest = read_manifest(folder / WEIGHTS, RunManifest)
    # The copy is called spec.yaml: a name that came from the original file's stem is in the manifest.
    spec = load(folder / SPEC, catalogs, name=manifest.name)
    if not manifest.is_of(spec):
        text = f"{folder / SPEC} is not the spec that this run was made with"
        hint = f"make the run again with: {manifest.command}; a changed spec makes a run of its own"
        raise fail("SE401", text, hint)
    run_code.require_agreed(folder / WEIGHTS, manifest, spec, _beside(folder, manifest))
    return spec


def read(folder: Path, catalogs: Catalogs) -> Run:
    """Rebuild a run's network by replaying its plan; raises SE401 if the files are not the ones written together.

    Within a process the run that was read last is not replayed again while its files are the same: one gets a copy.
    """
    from sesurgery.networks.weights import load_weights

    spec = read_spec(folder, catalogs)
    weights = require_intact(folder / WEIGHTS, RunManifest)
    plan = read_plan(folder, spec)
    key = (folder.resolve(), Path.cwd(), weights.sha256, weights.spec_digest, weights.plan_digest)
    if key not in _LAST:
        run = _replayed(folder, spec, plan)
        load_weights(run.network, folder / WEIGHTS)
        _LAST.clear()
        _LAST[key] = run.network
    return Run(folder, spec, plan, copy.deepcopy(_LAST[key]), weights)


def forget() -> None:
    """Drop the network that was replayed last."""
    _LAST.clear()


def read_empty(folder: Path, catalogs: Catalogs) -> Run:
    """The same with fresh values, for those who have others: the weights need not be whole."""
    spec = read_spec(folder, catalogs)
    return _replayed(folder, spec, read_plan(folder, spec))


def read_plan(folder: Path, spec: Spec) -> Plan:
    """The plan of a run whose spec was read; raises SE401 if it is not the run's, or not of that spec."""
    manifest = read_manifest(folder / WEIGHTS, RunManifest)
    again = f"make the run again with: {manifest.command}"
    # The bytes are judged before they are read: a damaged file need not be JSON.
    text = (folder / PLAN).read_text(encoding="utf-8", errors="replace") if (folder / PLAN).is_file() else ""
    if digest_text(text) != manifest.plan_digest:
        raise fail("SE401", f"{folder / PLAN} is not the plan that this run was made with", again)
    try:
        plan = Plan.from_json(text, BLOCKS)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise fail("SE401", f"{folder / PLAN} is not a plan that this version can read: {why}", again) from error
    if plan.spec_digest != manifest.spec_digest:
        raise fail("SE401", f"{folder / PLAN} is not a plan of the run's spec: it was made for another spec", again)
    if (foreign := run_code.foreign_part(spec, plan)) is not None:
        raise fail("SE401", f"{folder / PLAN} is not a plan of the run's spec: {foreign}", again)
    return plan


def _replayed(folder: Path, spec: Spec, plan: Plan) -> Run:
    manifest = read_manifest(folder / WEIGHTS, RunManifest)
    network = replay(spec, plan, _beside(folder, manifest))
    return Run(folder, spec, plan, network.eval(), manifest)


def replay(spec: Spec, plan: Plan, beside: Path | None = None) -> nn.Module:
    """The changed network with fresh values, made from the spec's model by the plan alone."""
    import torch

    from sesurgery.networks import sources

    with torch.random.fork_rng(devices=[]):
        network = sources.build(spec, weights=False, beside=beside)
        surgeon = sources.surgeon_for(spec)
        view = surgeon.look(network, plan.called).view
        if view.digest != plan.view_digest:
            plan = _again(spec, plan, planner.plan(spec, view))
        elif (elsewhere := run_code.misplaced(plan, view)) is not None:
            raise fail("SE403", f"the plan does not fit {spec.model.name!r}: {elsewhere}", "make the run again")
        return surgeon.apply(network, plan)


def _beside(folder: Path, manifest: RunManifest) -> Path | None:
    origin = manifest.spec_file(folder / WEIGHTS)
    return origin and origin.parent


def _again(spec: Spec, plan: Plan, again: Plan) -> Plan:
    """The plan made again, where another version of a library only named the values differently."""

    again = replace(again, called=plan.called)

    def sites(one: Plan) -> list[tuple[object, ...]]:
        return [(site.key, site.channels, site.block) for site in one.sites]

    if sites(plan) != sites(again):
        text = f"the plan does not fit {spec.model.name!r} as it is installed here"
        raise fail("SE403", text, "install the versions that the run's manifest names")
    return again
