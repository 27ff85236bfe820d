"""Spec x GraphView -> Plan: where every block goes, and why every other candidate was turned down. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from sesurgery.artifacts import digest_text, to_json
from sesurgery.blocks.base import Block
from sesurgery.catalog import Catalog, Ref
from sesurgery.diagnostics import Diagnostic, SpecError, suggest
from sesurgery.graph import GraphView, Use
from sesurgery.graph.idioms import stages
from sesurgery.placements.base import Match, Miss
from sesurgery.spec.model import Rule, Spec
from sesurgery.spec.plugins import options_to_dict, ref_from_dict


@dataclass(frozen=True)
class Site:
    """One resolved insertion point: a block on `value`, read by exactly `uses`. `stage` is None between stages."""

    key: str
    rule: str
    scope: str
    stage: int | None
    channels: int
    height: int
    width: int
    value: str
    uses: tuple[Use, ...]
    block: Ref[Block]

    @property
    def module(self) -> str:
        """The path of the block's module in the changed network: `se/layer1.0[0]` -> `layer1.0.se`."""
        ordinal = int(self.key.rpartition("[")[2].rstrip("]"))
        name = self.rule if ordinal == 0 else f"{self.rule}_{ordinal}"
        return f"{self.scope}.{name}" if self.scope else name


@dataclass(frozen=True)
class Rejection:
    """A candidate that a rule turned down."""

    rule: str
    where: str
    why: str


@dataclass(frozen=True)
class Plan:
    """All sites and every rejection with its reason, for one spec on one view. `stages` are (height, width)."""

    sites: tuple[Site, ...]
    rejected: tuple[Rejection, ...]
    warnings: tuple[str, ...]
    stages: tuple[tuple[int, int], ...]
    view_digest: str
    spec_digest: str

    def table(self) -> str:
        """The sites as an aligned text table, one a line."""
        rows = [("site", "stage", "channels", "size", "block", "on")]
        for site in self.sites:
            options = ", ".join(f"{key}={value}" for key, value in _unusual(site.block).items())
            block = f"{site.block.name}({options})"
            stage = "-" if site.stage is None else str(site.stage)
            rows.append((site.key, stage, str(site.channels), f"{site.height}x{site.width}", block, site.value))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def stage_line(self) -> str:
        """What the stage numbers mean: `stages: 1 = 56x56, 2 = 28x28`."""
        named = (f"{number} = {high}x{wide}" for number, (high, wide) in enumerate(self.stages, start=1))
        return "stages: " + (", ".join(named) or "none")

    @property
    def digest(self) -> str:
        """SHA-256 of the plan's JSON."""
        return digest_text(self.to_json())

    def to_json(self) -> str:
        """The plan as JSON; `from_json` is the inverse."""
        return to_json(
            {
                "sites": [
                    {
                        "key": site.key,
                        "rule": site.rule,
                        "scope": site.scope,
                        "stage": site.stage,
                        "channels": site.channels,
                        "height": site.height,
                        "width": site.width,
                        "value": site.value,
                        "uses": [{"user": use.user, "slot": use.slot} for use in site.uses],
                        "block": options_to_dict(site.block, "block"),
                    }
                    for site in self.sites
                ],
                "rejected": [{"rule": item.rule, "where": item.where, "why": item.why} for item in self.rejected],
                "warnings": list(self.warnings),
                "stages": [list(size) for size in self.stages],
                "view_digest": self.view_digest,
                "spec_digest": self.spec_digest,
            }
        )

    @classmethod
    def from_json(cls, text: str, blocks: Catalog[Any]) -> Plan:
        """A plan from its JSON; the catalog gives the blocks their options back."""
        data = json.loads(text)
        sites = tuple(
            Site(
                **{key: site[key] for key in ("key", "rule", "scope", "stage", "channels", "height", "width", "value")},
                uses=tuple(Use(use["user"], use["slot"]) for use in site["uses"]),
                block=ref_from_dict(site["block"], "block", blocks),
            )
            for site in data["sites"]
        )
        return cls(
            sites=sites,
            rejected=tuple(Rejection(**item) for item in data["rejected"]),
            warnings=tuple(data["warnings"]),
            stages=tuple((high, wide) for high, wide in data["stages"]),
            view_digest=data["view_digest"],
            spec_digest=data["spec_digest"],
        )


def plan(spec: Spec, graph: GraphView) -> Plan:
    """Resolve every rule of the spec against the view; raises SpecError holding every mistake of all rules."""
    sizes = stages(graph)
    sites: list[Site] = []
    rejected: list[Rejection] = []
    mistakes: list[Diagnostic] = []
    for index, (name, rule) in enumerate(zip(spec.rule_names(), spec.surgery, strict=True)):
        found, turned_down = _resolve(name, rule, graph, sizes)
        rejected += turned_down
        sites += found
        mistakes += _mistakes(spec, index, rule, graph, sizes, found, turned_down)
    mistakes += _conflicts(spec, sites)
    if mistakes:
        raise SpecError(mistakes)
    return Plan(tuple(sites), tuple(rejected), _advice(sites), sizes, graph.digest, spec.digest)


def _resolve(
    name: str, rule: Rule, graph: GraphView, sizes: tuple[tuple[int, int], ...]
) -> tuple[list[Site], list[Rejection]]:
    sites: list[Site] = []
    rejected: list[Rejection] = []
    ordinals: Counter[str] = Counter()
    for found in rule.at.options.select(graph):
        if isinstance(found, Miss):
            rejected.append(Rejection(name, found.where, found.why))
            continue
        if found.value.shape is None:
            rejected.append(Rejection(name, found.scope or found.value.name, "it is not a feature map"))
            continue
        channels, height, width = found.value.shape
        stage = sizes.index((height, width)) + 1 if (height, width) in sizes else None
        # Counted before the filters, so that a key means the same site under any filter.
        ordinal = ordinals[found.scope]
        ordinals[found.scope] += 1
        if (why := _filtered(rule, found, channels, stage)) is not None:
            rejected.append(Rejection(name, found.scope or found.value.name, why))
            continue
        key = f"{name}/{found.scope}[{ordinal}]"
        sites.append(
            Site(key, name, found.scope, stage, channels, height, width, found.value.name, found.uses, rule.insert)
        )
    return sites, rejected


def _filtered(rule: Rule, match: Match, channels: int, stage: int | None) -> str | None:
    """Why the rule's filters turn the match down, or None."""
    checks: list[tuple[bool, Callable[[], str]]] = [
        (
            rule.stages is not None and stage not in rule.stages,
            lambda: f"stage {stage} is not in 'stages'" if stage else "it lies in no stage",
        ),
        (
            rule.within is not None and not _any(match.scope, rule.within),
            lambda: f"the scope {match.scope!r} is not 'within' {_listed(rule.within)}",
        ),
        (
            rule.except_ is not None and _any(match.scope, rule.except_),
            lambda: f"the scope {match.scope!r} is in 'except' {_listed(rule.except_)}",
        ),
        (
            rule.min_channels is not None and channels < rule.min_channels,
            lambda: f"it has {channels} channels, 'min_channels' is {rule.min_channels}",
        ),
    ]
    return next((why() for turned_down, why in checks if turned_down), None)


def _mistakes(
    spec: Spec,
    index: int,
    rule: Rule,
    graph: GraphView,
    sizes: tuple[tuple[int, int], ...],
    sites: list[Site],
    rejected: list[Rejection],
) -> list[Diagnostic]:
    place = ("surgery", index)
    found: list[Diagnostic] = []
    for position, stage in enumerate(rule.stages or ()):
        if stage > len(sizes):
            known = ", ".join(f"{number} = {high}x{wide}" for number, (high, wide) in enumerate(sizes, start=1))
            text = f"there is no stage {stage}: the network has {len(sizes)}"
            found.append(Diagnostic("SE205", text, spec.span(*place, "stages", position), f"stages: {known or 'none'}"))
    for key, globs in (("within", rule.within), ("except", rule.except_)):
        for position, glob in enumerate(globs or ()):
            if not any(fnmatchcase(scope, glob) for scope in graph.scopes):
                span = spec.span(*place, key, position)
                found.append(Diagnostic("SE204", f"no scope matches {glob!r}", span, _near_scopes(glob, graph)))
    if found:
        return found
    if not sites and rule.expect != 0:
        span = spec.span(*place, "at")
        return [Diagnostic("SE201", f"'at: {rule.at.name}' matches nothing", span, _why_nothing(graph, rejected))]
    if rule.expect is not None and len(sites) != rule.expect:
        text = f"expected {rule.expect} sites, found {len(sites)}"
        hint = f"found: {_shortened([site.key for site in sites])}" + (
            f"; turned down: {_reasons(rejected)}" if rejected else ""
        )
        return [Diagnostic("SE202", text, spec.span(*place, "expect"), hint)]
    return []


def _conflicts(spec: Spec, sites: list[Site]) -> list[Diagnostic]:
    """Two sites that would reroute one reading of one value."""
    taken: dict[Use, Site] = {}
    clashes: dict[tuple[str, str], list[str]] = {}
    for site in sites:
        for use in site.uses:
            first = taken.setdefault(use, site)
            if first is not site:
                clashes.setdefault((first.rule, site.rule), []).append(f"{site.value} ({site.scope})")
    names = spec.rule_names()
    return [
        Diagnostic(
            "SE203",
            f"the rules {first!r} and {second!r} both insert on {_shortened(list(dict.fromkeys(values)))}",
            spec.span("surgery", names.index(second), "at"),
            "narrow one of them with 'stages', 'within' or 'except'",
        )
        for (first, second), values in clashes.items()
    ]


def _advice(sites: list[Site]) -> tuple[str, ...]:
    told: dict[str, list[str]] = {}
    for site in sites:
        if (text := site.block.options.advice(site.channels)) is not None:
            told.setdefault(text, []).append(site.key)
    return tuple(f"{text} ({_shortened(keys)})" for text, keys in told.items())


def _any(scope: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(scope, glob) for glob in globs)


def _listed(globs: tuple[str, ...] | None) -> str:
    return ", ".join(repr(glob) for glob in globs or ())


def _shortened(items: list[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _near_scopes(glob: str, graph: GraphView) -> str:
    if not graph.scopes:
        return "this network tells no scopes: use the structural placements without 'within' and 'except'"
    near = suggest(glob.rstrip("*."), graph.scopes)
    # A whole network's scopes are no help to anyone: the outermost ones are.
    return near if near.startswith("did") else suggest("", [scope for scope in graph.scopes if "." not in scope])


def _reasons(rejected: list[Rejection]) -> str:
    counted = Counter(item.why for item in rejected)
    first = {item.why: item.where for item in reversed(rejected)}
    parts = [
        f"{first[why]}: {why}" if count == 1 else f"{count} like {first[why]}: {why}"
        for why, count in counted.most_common(4)
    ]
    return "; ".join(parts)


def _why_nothing(graph: GraphView, rejected: list[Rejection]) -> str:
    if rejected:
        return f"turned down: {_reasons(rejected)}"
    return f"the network has no candidate of this kind; its modules: {_shortened(list(graph.scopes), 8)}"


def _unusual(block: Ref[Block]) -> Mapping[str, object]:
    """The options that differ from the block's defaults, which is what a reader wants to see."""
    given = options_to_dict(block, "block")
    fields = type(block.options).__dataclass_fields__  # type: ignore[attr-defined]
    return {key: value for key, value in given.items() if key != "block" and value != fields[key].default}
