"""One card: a unit's name, its width in channels, and its diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sesurgery.drawing import ink as ink
from sesurgery.drawing.wiring import ENTRY, Part, Wire, Wiring

PAD, HEAD, ROW, HIGH, GAP = 10, 40, 29, 20, 9
"""Padding, heading height, row height, part height, and space between lanes, in pixels."""


@dataclass(frozen=True)
class Card:
    """The content of a card. `scopes` has several entries if equal units share the card."""

    place: int
    """The number of the unit in the network from zero; the first one if units share the card."""
    scopes: tuple[str, ...]
    kind: str
    width: str
    """Channels in and out: `64 → 256`."""
    sources: tuple[int, ...]
    """The units that it reads, counted back from itself."""
    note: str
    """The text for its input, if that is not the unit before it."""
    size: tuple[int, ...] | None
    wiring: Wiring

    @property
    def look(self) -> tuple[object, ...]:
        """Everything that is drawn except the name: cards with equal looks can be merged."""
        places = list(self.wiring.parts)
        wires = tuple(
            (places.index(wire.source) if wire.source else -1, places.index(wire.target), wire.lane)
            for wire in self.wiring.wires
        )
        return self.kind, self.width, self.sources, self.size, tuple(self.wiring.parts.values()), wires

    def follows(self, other: Card) -> bool:
        """Whether its only input is the other card, the one before it."""
        return self.sources == (1,) and other.place + len(other.scopes) == self.place

    @property
    def name(self) -> str:
        return self.scopes[0] if len(self.scopes) == 1 else f"{self.scopes[0]} … {_tail(self.scopes)}"


class Painted:
    """A card with its size, as SVG at the origin."""

    def __init__(self, card: Card, colours: Mapping[str, str]) -> None:
        self.card, self.colours = card, colours
        self.parts = card.wiring.parts
        lanes = [7.0] * card.wiring.lanes
        for part in self.parts.values():
            lanes[part.lane] = max(lanes[part.lane], _wide(part))
        body = sum(lanes) + GAP * max(0, len(lanes) - 1)
        count = f"×{len(card.scopes)}" if len(card.scopes) > 1 else ""
        room = ink.width(count, 12, bold=True) + 14 if count else 0
        self.name = ink.shortened(card.name, max(24, int(body / 7)))
        second = "  ".join(item for item in (card.width, card.note) if item)
        heading = max(ink.width(self.name, 11, code=True) + room, ink.width(second, 10.5))
        self.wide = max(body, heading, 58) + 2 * PAD
        left = (self.wide - body) / 2
        self.x = [left + sum(lanes[:lane]) + GAP * lane + wide / 2 for lane, wide in enumerate(lanes)]
        self.at: dict[str, float] = {}
        """The centre of every part: its lane's, or that of the concatenation before it."""
        self.span: dict[str, tuple[float, float]] = {}
        for name, part in self.parts.items():
            self._stand(name, part, lanes)
        rows = 1 + max((part.row for part in self.parts.values()), default=0)
        self.bus = HEAD + 7.0
        self.bottom = self.bus + 10 + ROW * rows
        self.high = self.bottom + 4
        self.count, self.second = count, second

    def _stand(self, name: str, part: Part, lanes: Sequence[float]) -> None:
        """Place a part after its sources; a concatenation spans all its incoming lanes."""
        into = [wire for wire in self.card.wiring.wires if wire.target == name]
        above = next((wire.source for wire in into if wire.source and self._straight(wire)), None)
        middle = self.at[above] if above else self.x[part.lane]
        left, right = middle - _wide(part) / 2, middle + _wide(part) / 2
        if part.kind == "concat":
            left = min([left, *(self.x[wire.lane] - lanes[wire.lane] / 2 for wire in into)])
            right = max([right, *(self.x[wire.lane] + lanes[wire.lane] / 2 for wire in into)])
        self.at[name], self.span[name] = (left + right) / 2, (left, right)

    def _straight(self, wire: Wire) -> bool:
        """Whether both ends of a wire are in the same lane."""
        return self.parts[wire.source].lane == wire.lane == self.parts[wire.target].lane

    def top(self, part: Part) -> float:
        """The top edge of a part."""
        return self.bus + 10 + ROW * part.row + (ROW - HIGH) / 2 - 4

    def svg(self, x: float, y: float) -> str:
        """The card with its top left corner at (x, y)."""
        drawn = [ink.rect(0, 0, self.wide, self.high, radius=6, css="card")]
        drawn.append(ink.text(PAD, 17, self.name, "code"))
        drawn.append(ink.text(PAD, 31, self.second, "muted", font_size="10.5"))
        if self.count:
            drawn.append(self._times())
        drawn += self._entry()
        drawn += [ink.path(self.route(wire)) for wire in self.card.wiring.wires]
        for name in self.card.wiring.exits:
            drawn.append(ink.path([(self.at[name], self.top(self.parts[name]) + HIGH), (self.at[name], self.high)]))
        drawn += [self._part(name, part) for name, part in self.parts.items()]
        return ink.group(drawn, self._told(), x, y)

    def _times(self) -> str:
        wide = ink.width(self.count, 12, bold=True) + 10
        box = ink.rect(self.wide - wide - 5, 5, wide, 17, radius=8.5, fill=ink.INK)
        return box + ink.text(self.wide - wide / 2 - 5, 17.5, self.count, "badge mid", font_size="12")

    def _entry(self) -> list[str]:
        """The unit's input, and the line to the lanes that read it."""
        lanes = sorted({self.x[wire.lane] for wire in self.card.wiring.wires if wire.source == ENTRY})
        one = len(self.card.wiring.reads) == 1
        stems = [ink.path([(lane, HEAD), (lane, self.bus)]) for lane in (lanes[:1] if one else lanes)]
        if one and len(lanes) > 1:
            stems.append(ink.path([(lanes[0], self.bus), (lanes[-1], self.bus)]))
            stems.append(ink.circle(lanes[0], self.bus, 2.4, fill=ink.WIRE))
        return stems

    def route(self, wire: Wire) -> list[tuple[float, float]]:
        """The corners of a wire, from its source to its target."""
        down, target = self.x[wire.lane], self.parts[wire.target]
        if wire.source == ENTRY:
            points = [(down, self.bus)]
        else:
            source, start = self.parts[wire.source], self.at[wire.source]
            low = self.top(source) + HIGH
            points = [(start, low)]
            if source.lane == wire.lane:
                down = start
            else:
                points += [(start, low + 5), (down, low + 5)]
        left, right = self.span[wire.target]
        if wire.lane == target.lane or left <= down <= right:
            return [*points, (down, self.top(target))]
        middle = self.top(target) + HIGH / 2
        return [*points, (down, middle), (right if down > right else left, middle)]

    def _part(self, name: str, part: Part) -> str:
        (left, right), top = self.span[name], self.top(part)
        middle = self.at[name]
        if part.kind in ("sum", "product"):
            return ink.ring(middle, top + HIGH / 2, part.text)
        baseline = top + HIGH / 2 + 3.9
        if part.kind == "rule":
            box = ink.rect(left, top, right - left, HIGH, radius=HIGH / 2, fill=self.colours[part.text])
            return box + ink.text(middle, baseline, part.text, "badge mid")
        fill, line = ink.FILLS[part.kind]
        radius = HIGH / 2 if part.kind in ("gate", "gone") else 4
        dashes = {"stroke_dasharray": "3 2"} if part.kind == "gone" else {}
        box = ink.rect(left, top, right - left, HIGH, radius=radius, fill=fill, stroke=line, **dashes)
        return box + ink.text(middle, baseline, part.text, "struck mid" if part.kind == "gone" else "mid")

    def _told(self) -> str:
        parts = ", then ".join(
            f"{part.text} taken out" if part.kind == "gone" else part.text for part in self.parts.values()
        )
        kind = {"residual": "residual unit", "concat": "multi-branch module"}.get(self.card.kind, self.card.kind)
        return f"{', '.join(self.card.scopes)}: {kind}, {self.card.width} channels: {parts}"


def _wide(part: Part) -> float:
    if part.kind in ("sum", "product"):
        return 18
    return max(30.0, ink.width(part.text, 11, bold=part.kind == "rule") + 14)


def _tail(scopes: Sequence[str]) -> str:
    """The first path and the different end of the last one: `layer3.1 … 35`."""
    first, last = scopes[0].split("."), scopes[-1].split(".")
    same = 0
    while same < min(len(first), len(last)) - 1 and first[same] == last[same]:
        same += 1
    return ".".join(last[same:])
