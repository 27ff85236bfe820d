"""Mistakes of a spec on a given network, reported at the place in the file where they can be fixed."""

from __future__ import annotations

from sesurgery.diagnostics import Diagnostic, suggest
from sesurgery.graph import GraphView, Use
from sesurgery.planner.model import Rejection, Site, size_of
from sesurgery.planner.resolve import Resolved, Surroundings, matches
from sesurgery.reasons import by_kind
from sesurgery.spec import NamesSurgery
from sesurgery.spec.surgery import InsertRule, RemoveRule


def of_rule(spec: NamesSurgery, index: int, resolved: Resolved, around: Surroundings) -> list[Diagnostic]:
    """Stages and globs that do not exist; if there are none, a rule that matches nothing or not the expected number."""
    rule, place = spec.surgery[index], ("surgery", index)
    found = [*_stages(spec, index, around), *_globs(spec, index, around.graph), *_unknown(spec, index, around.graph)]
    if found:
        return found
    if not resolved.taken and rule.expect != 0:
        key = "at" if isinstance(rule, InsertRule) else "remove" if isinstance(rule, RemoveRule) else "replace"
        name = rule.at.name if isinstance(rule, InsertRule) else getattr(rule, key)
        hint = _why_nothing(around.graph, resolved.rejected, key)
        return [Diagnostic("SE201", f"'{key}: {name}' matches nothing", spec.span(*place, key), hint)]
    if rule.expect is not None and resolved.taken != rule.expect:
        text = f"expected {rule.expect} sites, found {resolved.taken}"
        hint = f"found: {shortened(resolved.keys) or 'none'}"
        if resolved.rejected:
            hint += f"; turned down: {_reasons(resolved.rejected)}"
        return [Diagnostic("SE202", text, spec.span(*place, "expect"), hint)]
    return []


def of_all(spec: NamesSurgery, names: tuple[str, ...], sites: list[Site]) -> list[Diagnostic]:
    """Two sites that would reroute the same use of a value."""
    taken: dict[Use, Site] = {}
    clashes: dict[tuple[str, str], list[str]] = {}
    for site in sites:
        for use in site.uses:
            first = taken.setdefault(use, site)
            if first is not site:
                clashes.setdefault((first.rule, site.rule), []).append(f"{site.value} ({site.scope})")
    return [
        Diagnostic(
            "SE203",
            f"the rules {first!r} and {second!r} both insert on {shortened(list(dict.fromkeys(values)))}",
            spec.span("surgery", names.index(second), "at"),
            "narrow one of them with 'stages', 'within' or 'except'",
        )
        for (first, second), values in clashes.items()
    ]


def advice(sites: list[Site]) -> tuple[str, ...]:
    """The warnings of blocks about their sites, each text once with all its sites."""
    told: dict[str, list[str]] = {}
    for site in sites:
        if (text := site.block.options.advice(site.channels)) is not None:
            told.setdefault(text, []).append(site.key)
    return tuple(f"{text} ({shortened(keys)})" for text, keys in told.items())


def shortened(items: list[str], most: int = 4) -> str:
    """The first few items, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _stages(spec: NamesSurgery, index: int, around: Surroundings) -> list[Diagnostic]:
    sizes = around.sizes
    known = ", ".join(f"{number} = {size_of(size)}" for number, size in enumerate(sizes, start=1))
    return [
        Diagnostic(
            "SE205",
            f"there is no stage {stage}: the network has {len(sizes)}",
            spec.span("surgery", index, "stages", position),
            f"stages: {known or 'none'}",
        )
        for position, stage in enumerate(spec.surgery[index].stages or ())
        if stage > len(sizes)
    ]


def _globs(spec: NamesSurgery, index: int, graph: GraphView) -> list[Diagnostic]:
    rule = spec.surgery[index]
    return [
        Diagnostic(
            "SE204", f"no scope matches {glob!r}", spec.span("surgery", index, key, at), _near_scopes(glob, graph)
        )
        for key, globs in (("within", rule.within), ("except", rule.except_))
        for at, glob in enumerate(globs or ())
        if not any(matches(scope, (glob,)) for scope in graph.scopes)
    ]


def _unknown(spec: NamesSurgery, index: int, graph: GraphView) -> list[Diagnostic]:
    rule = spec.surgery[index]
    if not isinstance(rule, InsertRule):
        return []
    return [
        Diagnostic(
            "SE204",
            f"no module matches '{item.name}'",
            spec.span("surgery", index, "at", *item.place),
            _near_scopes(item.name, graph),
        )
        for item in rule.at.options.unknown(graph)
    ]


def _near_scopes(glob: str, graph: GraphView) -> str:
    if not graph.scopes:
        named = "residual, pre, post, identity, inner, concat, conv"
        return f"this network has no scopes: use the structural placements ({named}) without 'within' and 'except'"
    near = suggest(glob.rstrip("*."), graph.scopes)
    # A whole network's scopes are too long a list: the outermost ones are enough.
    return near if near.startswith("did") else suggest("", [scope for scope in graph.scopes if "." not in scope])


def _reasons(rejected: list[Rejection]) -> str:
    groups = by_kind(item.reason for item in rejected)[:4]
    return "; ".join(("" if len(group) == 1 else f"{len(group)} like ") + str(group[0]) for group in groups)


def _why_nothing(graph: GraphView, rejected: list[Rejection], key: str) -> str:
    if rejected:
        return f"turned down: {_reasons(rejected)}"
    if key != "at":
        return "the network has no channel gate"
    return f"the network has no candidate of this kind; its modules: {shortened(list(graph.scopes), 8)}"
