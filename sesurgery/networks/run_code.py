"""What a run may execute: the code that its spec names, after consent, and no block that its spec does not name.

A run's folder may come from anybody. Its spec is the one place that can name code, its plan can only say where.
"""

from __future__ import annotations

import json
from pathlib import Path

from sesurgery import trust
from sesurgery.catalog import Ref
from sesurgery.graph import GraphView
from sesurgery.planner import Plan, Removal, Site
from sesurgery.spec import Spec
from sesurgery.spec.code import code_of, location
from sesurgery.spec.plugins import options_to_dict
from sesurgery.spec.surgery import InsertRule, RemoveRule, ReplaceRule
from sesurgery.workspace import RunManifest, require_trusted


def placed(spec: Spec, beside: Path | None) -> dict[str, str | None]:
    """For the manifest of a run: each factory with its place, under a seal that only this user can make.

    None stands for one that is installed.
    """
    found = _places(spec, beside)
    return {name: None if place is None else trust.seal(str(place)) for name, place in found.items()}


def require_agreed(weights: Path, manifest: RunManifest, spec: Spec, beside: Path | None) -> None:
    """Raise SE409 if a run's spec names code that nobody agreed to run.

    A run that was made here runs the code that lay there then, however it was changed since, and what is installed.
    Code of that name in another folder is other code: the current folder is not the user's own, or the run was moved.
    """
    found = _places(spec, beside)
    if not found:
        return
    require_trusted(weights, manifest, f"its spec runs {', '.join(found)}")
    for name, place in found.items():
        if place is not None and not trust.holds(str(place), manifest.details.code.get(name)):
            trust.require_agreed(weights, f"{name} of its spec is now {place.as_posix()}, which it was not then")


def foreign_part(spec: Spec, plan: Plan) -> str | None:
    """The first part of a plan that its spec does not contain (a rule, a block, an option), or None."""
    if len(plan.rules) != len(spec.surgery) or len(set(plan.rules)) != len(plan.rules):
        return f"it has {len(plan.rules)} rules, the spec has {len(spec.surgery)}"
    rules = dict(zip(plan.rules, spec.surgery, strict=True))
    for site in plan.sites:
        rule = rules.get(site.rule)
        if not isinstance(rule, InsertRule | ReplaceRule) or _written(site.block) != _written(rule.insert):
            return f"the block of {site.key} is not the one that a rule of the spec inserts"
    for gone in plan.removals:
        if not isinstance(rules.get(gone.rule), RemoveRule | ReplaceRule):
            return f"no rule of the spec takes {gone.key} out"
    return None


def misplaced(plan: Plan, view: GraphView) -> str | None:
    """The first site or removal that is not in the network as the plan says, with the reason; None if all are."""
    nodes = {node.name: node for node in view}
    gone = {item.output for item in plan.removals}
    placed: tuple[Site | Removal, ...] = (*plan.sites, *plan.removals)
    for item in placed:
        node = nodes.get(item.value)
        if node is None:
            return f"{item.key} is on {item.value!r}, which the network does not have"
        if node.shape != item.shape:
            said, found = (
                "x".join(map(str, shape)) if shape else "no feature map" for shape in (item.shape, node.shape)
            )
            return f"{item.key} says {said}, the network has {found} there"
    unknown = [use.user for site in plan.sites for use in site.uses if use.user not in nodes and use.user not in gone]
    return f"{unknown[0]!r}, which reads a block, is not in the network" if unknown else None


def _places(spec: Spec, beside: Path | None) -> dict[str, Path | None]:
    folders = (beside or spec.folder, Path.cwd())
    return {name: location(name, folders) for name in code_of(spec)}


def _written(block: Ref[object]) -> str:
    # As text: True and 1 are equal to Python, and not to a factory.
    return json.dumps(options_to_dict(block, "block"), sort_keys=True)
