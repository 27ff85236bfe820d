"""Spec x GraphView -> Plan: where every block goes, and why every other candidate was rejected. Pure functions."""

from __future__ import annotations

from sesurgery.diagnostics import SpecError
from sesurgery.graph import GraphView, Op
from sesurgery.planner import mistakes
from sesurgery.planner.model import FOR_VOLUMES, Plan, Rejection, Removal, Site
from sesurgery.planner.resolve import Resolved, Surroundings, resolve
from sesurgery.spec import NamesSurgery
from sesurgery.spec.surgery import InsertRule

__all__ = ["FOR_VOLUMES", "Plan", "Rejection", "Removal", "Site", "plan"]


def plan(spec: NamesSurgery, graph: GraphView) -> Plan:
    """Resolve every rule of the spec against the view; raises SpecError with all mistakes of all rules."""
    around = Surroundings(graph)
    names = _names(spec, graph)
    named = list(enumerate(zip(names, spec.surgery, strict=True)))
    resolved: dict[int, Resolved] = {}
    # Removals come first in any order of the rules, because they decide where blocks can be inserted.
    for index, (name, rule) in sorted(named, key=lambda item: isinstance(item[1][1], InsertRule)):
        resolved[index] = resolve(name, rule, around)
    ordered = [resolved[index] for index, _ in named]
    sites = [site for item in ordered for site in item.sites]
    found = [mistake for index, item in enumerate(ordered) for mistake in mistakes.of_rule(spec, index, item, around)]
    found += mistakes.of_all(spec, names, sites)
    if found:
        raise SpecError(found)
    return Plan(
        rules=names,
        sites=tuple(sites),
        removals=tuple(removal for item in ordered for removal in item.removals),
        rejected=tuple(rejection for item in ordered for rejection in item.rejected),
        warnings=mistakes.advice(sites),
        stages=around.sizes,
        view_digest=graph.digest,
        spec_digest=spec.digest,
    )


def _names(spec: NamesSurgery, graph: GraphView) -> tuple[str, ...]:
    """The rules' names; a default name that a module of the network already has gets a number.

    A placeholder identity (timm's `se` in a network without SE) does not count, because it is replaced.
    """
    taken = {part for node in graph if node.op is not Op.PASS for part in node.scope.split(".")}
    names: list[str] = []
    for rule, stem in zip(spec.surgery, spec.rule_names(), strict=True):
        name, count = stem, 1
        while rule.name is None and (name in taken or name in names):
            count += 1
            name = f"{stem}_{count}"
        names.append(name)
    return tuple(names)
