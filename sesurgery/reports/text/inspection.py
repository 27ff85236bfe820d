"""What a network offers, as text and as data. The text does not grow with the network: a line a stage and placement."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sesurgery.accounting import CONVENTION, Cost
from sesurgery.graph import Shape
from sesurgery.planner import Site
from sesurgery.reasons import Reason, by_kind
from sesurgery.reports.wording import count, plural
from sesurgery.surgeons.base import Leaf
from sesurgery.tables import aligned

FEW, ROOM = 4, 64


@dataclass(frozen=True)
class Gate:
    """A channel gate that the network has; `kind` is what a rule calls it: se, effective_se or any."""

    scope: str
    kind: str
    stage: int | None
    channels: int


@dataclass(frozen=True)
class Offer:
    """What one placement finds in the network, and what it turns down."""

    placement: str
    sites: tuple[Site, ...]
    rejected: tuple[Reason, ...]


@dataclass(frozen=True)
class Inspection:
    """What a network is made of and where blocks could go. `stages` are (height, width)."""

    model: str
    shape: Shape
    nodes: int
    conv_units: int
    residual_units: int
    cost: Cost
    stages: tuple[tuple[int, ...], ...]
    leaves: tuple[Leaf, ...]
    gates: tuple[Gate, ...]
    offers: tuple[Offer, ...]


def kind_of(projections: int) -> str:
    """What a rule calls a channel gate with so many layers that hold weights."""
    return {1: "effective_se", 2: "se"}.get(projections, "any")


def to_json(found: Inspection) -> dict[str, object]:
    """All of it as plain data."""
    fields = ("scope", "stage", "channels", "height", "width", "value")
    return {
        "model": found.model,
        "shape": list(found.shape),
        "nodes": found.nodes,
        "conv_units": found.conv_units,
        "residual_units": found.residual_units,
        "params": found.cost.params,
        "macs": found.cost.macs,
        "macs_convention": CONVENTION,
        "stages": [list(size) for size in found.stages],
        "leaves": [dataclasses.asdict(leaf) for leaf in found.leaves],
        "gates": [dataclasses.asdict(gate) for gate in found.gates],
        "placements": [
            {
                "placement": offer.placement,
                "sites": [{field: getattr(site, field) for field in fields} for site in offer.sites],
                "rejected": [{"where": item.where, "why": item.text, "kind": item.kind} for item in offer.rejected],
            }
            for offer in found.offers
        ],
    }


def to_text(found: Inspection, *, every: bool = False) -> str:
    """The network, then its placements; `every` lists each site, gate and rejection on a line of its own."""
    lines = [
        f"{found.model} on {'x'.join(map(str, found.shape))}",
        f"  {found.nodes} nodes, {plural(found.conv_units, 'convolution unit')}, "
        f"{plural(found.residual_units, 'residual unit')}",
        f"  {count(found.cost.params)} parameters, {count(found.cost.macs)} MACs",
        "  stages: " + (", ".join(f"{at} = {_size(size)}" for at, size in enumerate(found.stages, 1)) or "none"),
        *_gates(found.gates, every),
        *_leaves(found, every),
    ]
    bodies: dict[tuple[str, ...], list[str]] = {}
    for offer in found.offers:
        bodies.setdefault(tuple(_offer(offer, every)), []).append(offer.placement)
    for (head, *body), names in bodies.items():
        lines += ["", f"{', '.join(names)}: {head}", *body]
    return "\n".join(lines)


def _offer(offer: Offer, every: bool) -> list[str]:
    """The number of sites, then what and where they are; placements with the same text are listed together."""
    body = [*_sites(offer.sites, every), *_reasons("turned down", offer.rejected, every)]
    if not offer.sites:
        return ["none", *(body or ["  the network has no candidate of this kind"])]
    return [plural(len(offer.sites), "site"), *body]


def _gates(gates: Sequence[Gate], every: bool) -> Iterator[str]:
    if not gates:
        yield "  channel gates: none"
    for kind in dict.fromkeys(gate.kind for gate in gates):
        own = [gate for gate in gates if gate.kind == kind]
        yield f"  channel gates: {len(own)} {kind}" + (":" if every else f": {_few([gate.scope for gate in own])}")
        if every:
            yield from (f"    stage {gate.stage or '-'}  {gate.channels} channels  {gate.scope}" for gate in own)


def _leaves(found: Inspection, every: bool) -> list[str]:
    if not found.leaves:
        return ["  taken as a whole when tracing: none"]
    return _reasons("taken as a whole when tracing", [leaf.reason for leaf in found.leaves], every)


def _sites(sites: Sequence[Site], every: bool) -> list[str]:
    """A line a stage, or a line a site."""
    rows: list[tuple[str, ...]] = []
    for stage in dict.fromkeys(site.stage for site in sites):
        own = [site for site in sites if site.stage == stage]
        name = f"stage {stage}" if stage else "no stage"
        if every:
            rows += [
                (name, _size(site.shape[1:]), f"{site.channels} channels", f"{site.scope} on {site.value}")
                for site in own
            ]
            continue
        sizes = sorted({site.shape[1:] for site in own})
        size = _size(sizes[0]) if len(sizes) == 1 else f"{_size(sizes[0])} to {_size(sizes[-1])}"
        places = _few([site.scope or site.value for site in own])
        rows.append((name, size, plural(len(own), "site"), f"{_channels(own)} channels", places))
    return ["  " + line for line in aligned(rows, left=range(5))]


def _channels(sites: Sequence[Site]) -> str:
    widths = sorted({site.channels for site in sites})
    return f"{widths[0]} to {widths[-1]}" if len(widths) > FEW else ", ".join(map(str, widths))


def _reasons(title: str, reasons: Sequence[Reason], every: bool) -> list[str]:
    """Why, how often, and where: those of one kind together, the most common first."""
    if every:
        return [f"  {title}: {len(reasons)}", *(f"    {reason}" for reason in reasons)] if reasons else []
    ranked = by_kind(reasons)
    lines = [
        f"  {title}, {len(group)}: {group[0].text} ({_few([reason.where for reason in group])})"
        for group in ranked[:FEW]
    ]
    if rest := ranked[FEW:]:
        lines.append(f"  {title}, {sum(map(len, rest))}: {plural(len(rest), 'other reason')} (--all lists them)")
    return lines


def _few(places: Sequence[str]) -> str:
    """All places, or the first and the last of many."""
    shown = [*places] if len(places) <= FEW else [f"{places[0]}, {places[1]} … {places[-1]}"]
    if len(places) > 2 and sum(map(len, shown)) > ROOM:
        shown = [f"{places[0]} … {places[-1]}"]
    return ", ".join(shown)


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
