"""The verb `apply`: carry the plan out and write a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from sesurgery.artifacts import locked
from sesurgery.diagnostics import Diagnostic, SesurgeryError, fail
from sesurgery.networks import checkpoint, run_files
from sesurgery.networks.sources import surgeon_for
from sesurgery.pipeline import results
from sesurgery.pipeline.plan import Planned, plan
from sesurgery.pipeline.workspace import Workspace
from sesurgery.planner import Plan
from sesurgery.spec import Spec
from sesurgery.workspace import RunDetails, relative


@dataclass(frozen=True)
class Applied:
    """A new run: its folder, its changed network in training mode, and the plan that was carried out."""

    folder: Path
    network: nn.Module
    planned: Planned


def apply(spec: Spec, workspace: Workspace, origin: str) -> Applied:
    """Insert the blocks, prove that they run, and write a run; `origin` is the spec as the user named it."""
    planned = plan(spec)
    if not isinstance(planned.network, nn.Module):
        text = "a network in an ONNX file has no run: it cannot be trained"
        raise fail("SE302", text, "write a changed file with `sesurgery apply SPEC -o OUT.onnx`")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.train.seed)
        try:
            network = surgeon_for(spec).apply(planned.network, planned.plan)
        except SesurgeryError as error:
            raise _at_its_rule(error, spec, planned.plan) from error
    # Two processes at once must not choose one folder.
    with locked(workspace.runs):
        folder = workspace.fresh_run(spec.name, spec.digest)
        checkpoint.save(
            folder,
            network,
            spec,
            planned.plan,
            command=f"sesurgery apply {origin}",
            details=RunDetails(
                spec=relative(origin, folder / run_files.WEIGHTS),
                sites=len(planned.sites),
                params_before=planned.before.params,
                params_after=planned.after.params,
                macs_before=planned.before.macs,
                macs_after=planned.after.macs,
            ),
        )
        results.write_network(folder, planned)
    return Applied(folder, network, planned)


def _at_its_rule(error: SesurgeryError, spec: Spec, plan: Plan) -> SesurgeryError:
    """The surgeon's complaints about sites, each with the place of the rule that made its site."""
    rules = {site.key: plan.rules.index(site.rule) for site in plan.sites}

    def placed(item: Diagnostic) -> Diagnostic:
        if item.span or item.site not in rules:
            return item
        return replace(item, span=spec.span("surgery", rules[item.site], "insert"))

    return type(error)([placed(item) for item in error.diagnostics])
