"""A spec without the blocks that do not pay, as `sesurgery gates --prune` writes it."""

from __future__ import annotations

import glob
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sesurgery.artifacts import write_text
from sesurgery.diagnostics import fail
from sesurgery.networks import checkpoint
from sesurgery.pipeline.gates.gates import GateResult, require_blocks
from sesurgery.pipeline.plan import plan
from sesurgery.pipeline.specs import catalogs
from sesurgery.planner import Site
from sesurgery.spec import Spec
from sesurgery.spec.surgery import InsertRule
from sesurgery.workspace import RunManifest, read_manifest
from sesurgery.workspace.targets import claim


@dataclass(frozen=True)
class PruneResult:
    """The written spec, the keys of the blocks that it leaves out, and of those that do not pay and stay, with why."""

    path: Path
    left_out: tuple[str, ...]
    left_in: tuple[tuple[str, str], ...]


def prune(found: GateResult, out: Path, needless: Collection[str] = (), *, force: bool = False) -> PruneResult:
    """Write the spec of a run without the blocks that do not pay: their gates are the same for every sample.

    The blocks in `needless` do not pay either: see `pipeline.needless`.

    Raises SE402 where the run has no block of ours, SE201 where every block pays or none does, or where the other rules
    would choose other places without these, and SE405 if another file is there, or its folder is not that of the run's
    spec, whose paths are relative.
    """
    folder = found.source
    spec = checkpoint.read_spec(folder, catalogs())
    planned = checkpoint.read_plan(folder, spec)
    require_blocks(folder, planned)
    sites = planned.sites
    own = read_manifest(folder / checkpoint.WEIGHTS, RunManifest).spec_file(folder / checkpoint.WEIGHTS)
    claim(out, needs=() if own is None else (own,), ours=lambda _: False, force=force)
    if own is not None and own.parent.resolve() != out.absolute().parent.resolve():
        text = f"{out.as_posix()} is not in the folder of the run's spec, {own.parent.as_posix()}/"
        raise fail("SE405", text, "write it there: paths in a spec are relative to it")
    # No rule of the spec has put in what the network brings along.
    ours = [block for block in found.blocks if block.key not in found.existing]
    idle = {block.key for block in ours if block.idle or block.key in needless}
    if not idle:
        text = f"every block of {folder.as_posix()} pays: no gate is the same for all of these samples"
        raise fail("SE201", text, "there is nothing to leave out")
    rules, left_in = _without(spec, sites, idle)
    left_out = tuple(site.key for site in sites if site.key in idle and site.key not in dict(left_in))
    if not rules or len(left_out) == len(sites):
        text = f"no block of {folder.as_posix()} pays: all gates are as good as constants"
        raise fail("SE201", text, "take the plain network")
    if left_out:
        pruned = spec.with_({"surgery": rules, "name": f"{spec.name}-pruned", "study": None})
        _require_same_places(pruned, [site for site in sites if site.key not in left_out])
        why = f"without {len(left_out)} of its {len(sites)} blocks, which did not pay"
        write_text(out, f"# {spec.name} {why}.\n{pruned.text()}")
    return PruneResult(out, left_out, left_in)


def _without(
    spec: Spec, sites: Sequence[Site], idle: set[str]
) -> tuple[list[dict[str, Any]], tuple[tuple[str, str], ...]]:
    """The rules with the scopes of idle blocks taken out, and the idle blocks that stay, each with why."""
    left_in: list[tuple[str, str]] = []
    rules: list[dict[str, Any]] = []
    written = yaml.safe_load(spec.text())["surgery"]
    for name, rule, given in zip(spec.rule_names(), spec.surgery, written, strict=True):
        ours = [site for site in sites if site.rule == name]
        mine = [site for site in ours if site.key in idle]
        if not isinstance(rule, InsertRule):
            left_in += [(site.key, "without it, the gate that it replaces would be back") for site in mine]
            rules.append(given)
            continue
        shared = {site.scope for site in ours if site.key not in idle}
        left_in += [(site.key, f"another block of {site.scope} pays") for site in mine if site.scope in shared]
        gone = list(dict.fromkeys(site.scope for site in mine if site.scope not in shared))
        stay = sum(site.scope not in gone for site in ours)
        if not gone:
            rules.append(given)
        elif stay:
            before = given.get("except", [])
            before = [before] if isinstance(before, str) else before
            changed = {**given, "except": [*before, *map(glob.escape, gone)]}
            rules.append({**changed, "expect": stay} if "expect" in given else changed)
    return rules, tuple(left_in)


def _require_same_places(pruned: Spec, wanted: Sequence[Site]) -> None:
    """Filters such as `every` and `pick` count the places that are left."""
    made = plan(pruned).plan.sites
    if {(site.scope, site.value) for site in made} != {(site.scope, site.value) for site in wanted}:
        text = "without the blocks that do not pay, 'every' or 'pick' of the rules would choose other places"
        raise fail("SE201", text, "name the places instead, by 'within' and 'except'")
