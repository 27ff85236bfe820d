"""A network and the changes in a plan as one SVG: units as small diagrams, in execution order.

The SVG is text made from a graph and a plan, with no embedded fonts, nothing to load, and its own background. Every
part is labelled; colour is not needed to read it. The title, the description and a sentence for every card are for
screen readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sesurgery.drawing import ink as ink
from sesurgery.drawing.card import Card, Painted
from sesurgery.drawing.flow import Band, flow
from sesurgery.drawing.legend import legend
from sesurgery.drawing.units import Parts, Unit, units
from sesurgery.drawing.wiring import wire
from sesurgery.graph import GraphView, Op
from sesurgery.planner import Plan, Site

MANY = 30
"""With more units than this, consecutive equal units share a card."""

MARGIN = 28

MARK = 'class="sesurgery"'
"""Marks a file as a picture of this program."""


def to_svg(view: GraphView, plan: Plan, title: str, chosen: Mapping[str, str] | None = None) -> str:
    """The picture of a network with the plan's blocks drawn in, as the text of an SVG file.

    `chosen` are the colours of some rules.
    """
    parts = Parts(view)
    found = units(view, parts)
    cards = cards_of(view, plan, parts, found)
    if len(cards) > MANY:
        cards = _shared(cards)
    colours = dict(zip(dict.fromkeys(site.rule for site in plan.sites), _endless(ink.RULES), strict=False))
    colours |= chosen or {}
    painted = [Painted(card, colours) for card in cards]
    body, wide, high = flow(_bands(painted, plan), MARGIN, 84)
    wide = max(wide, 640)
    line = _summary(view, plan, found)
    heading = [
        ink.text(MARGIN, 42, title, font_size="21", font_weight="650"),
        ink.text(MARGIN, 64, line, "muted", font_size="13"),
    ]
    key, high = legend(cards, plan, colours, MARGIN, high + 6, wide - 2 * MARGIN)
    described = f"{line}. " + " ".join(f"{site.key} on {site.channels} channels." for site in plan.sites)
    return ink.document(wide, high + MARGIN - 8, title, described, [*heading, *body, *key])


def cards_of(view: GraphView, plan: Plan, parts: Parts, found: Sequence[Unit]) -> list[Card]:
    """A card for each unit; equal units share one."""
    gone = frozenset(item.output for item in plan.removals)
    unit_of = {node.name: index for index, unit in enumerate(found) for node in unit.nodes}
    sites: dict[int, list[Site]] = {}
    for site in plan.sites:
        sites.setdefault(_owner(view, site, unit_of, found), []).append(site)
    cards = []
    for index, unit in enumerate(found):
        wiring = wire(view, parts, unit, tuple(sites.get(index, ())), gone)
        read = sorted({source for name in wiring.reads for source in _feeding(view, name, unit_of)}, reverse=True)
        before = view[wiring.reads[0]].shape if len(wiring.reads) == 1 else None
        ends = [str(shape[0]) for shape in (before, unit.shape if unit.kind != "head" else None) if shape]
        note = "" if read in ([index - 1], [-1]) else _from([found[at].scope for at in read if at >= 0])
        size = unit.shape[1:] if unit.shape and unit.kind != "head" else None
        offsets = tuple(index - source for source in read)
        cards.append(Card(index, (unit.scope,), unit.kind, " → ".join(ends), offsets, note, size, wiring))
    return cards


def _owner(view: GraphView, site: Site, unit_of: dict[str, int], found: Sequence[Unit]) -> int:
    """The card on which a site is drawn: the value's, or the reader's if the site is on one side of a fork."""
    first = site.uses[0]
    value = view[first.user].inputs[first.slot]
    readers = {unit_of[use.user] for use in site.uses if use.user in unit_of}
    everyone = len(site.uses) == len(value.uses)
    if value.name in unit_of and (everyone or len(readers) != 1):
        return unit_of[value.name]
    if readers:
        return min(readers)
    earlier = [index for index, unit in enumerate(found) if unit.end.index <= value.index]
    return unit_of.get(value.name, max(earlier, default=0))


def _feeding(view: GraphView, name: str, unit_of: dict[str, int]) -> set[int]:
    """The units that a value comes from; -1 is the network's input."""
    found: set[int] = set()
    queue, seen = [view[name]], {name}
    while queue:
        node = queue.pop()
        if node.name in unit_of:
            found.add(unit_of[node.name])
        elif node.op is Op.INPUT:
            found.add(-1)
        else:
            fresh = [source for source in node.inputs if source.name not in seen and not source.constant]
            seen.update(source.name for source in fresh)
            queue += fresh
    return found


def _shared(cards: Sequence[Card]) -> list[Card]:
    """Consecutive equal cards merged into one that names them all."""
    shared: list[Card] = []
    for card in cards:
        if shared and shared[-1].look == card.look:
            shared[-1] = replace(shared[-1], scopes=(*shared[-1].scopes, *card.scopes))
        else:
            shared.append(card)
    return shared


def _bands(painted: Sequence[Painted], plan: Plan) -> list[Band]:
    runs: list[tuple[object, list[Painted]]] = []
    for item in painted:
        size: object = "head" if item.card.kind == "head" else item.card.size
        if size is None and runs:
            size = runs[-1][0]
        if runs and runs[-1][0] == size:
            runs[-1][1].append(item)
        else:
            runs.append((size, [item]))
    if len(runs) > 2 * len({size for size, _ in runs}) + 2:
        # Branches of several resolutions side by side: each resolution once.
        runs = [
            (size, [item for at, items in runs for item in items if at == size])
            for size in dict.fromkeys(size for size, _ in runs)
        ]
    return [_band(size, items, plan) for size, items in runs]


def _band(size: object, items: Sequence[Painted], plan: Plan) -> Band:
    count = sum(len(item.card.scopes) for item in items)
    units_ = f"{count} unit{'s' * (count != 1)}"
    if not isinstance(size, tuple):
        return Band(str(size or "units"), "", tuple(items))
    stage = f"stage {plan.stages.index(size) + 1} · " if size in plan.stages else ""
    return Band(" × ".join(map(str, size)), stage + units_, tuple(items))


def _summary(view: GraphView, plan: Plan, found: Sequence[Unit]) -> str:
    shape = next((node.shape for node in view if node.op is Op.INPUT and node.shape), None)
    kinds = [(sum(unit.kind == kind for unit in found), name) for kind, name in _KINDS.items()]
    words = [f"input {'×'.join(map(str, shape))}"] if shape else []
    words += [f"{count} {name}{'s' * (count != 1)}" for count, name in kinds if count]
    words.append(f"{len(plan.sites)} block{'s' * (len(plan.sites) != 1)} inserted")
    if plan.removals:
        words.append(f"{len(plan.removals)} taken out")
    return " · ".join(words)


_KINDS = {"residual": "residual unit", "concat": "multi-branch module", "module": "other module"}


def _from(scopes: Sequence[str]) -> str:
    if len(scopes) > 1:
        return f"from {len(scopes)} units"
    return f"from {ink.shortened(scopes[0], 18)}" if scopes else ""


def _endless(colours: Sequence[str]) -> Iterable[str]:
    while True:
        yield from colours
