"""One unit as a small diagram: its parts in rows and lanes, and the wires between them.

A lane is a column; a part is below the part that it follows, in the same lane. Every further input of a join has its
own lane, so no wire crosses a part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sesurgery.drawing.units import Parts, Unit
from sesurgery.graph import ConvFacts, GraphView, Node, Op, Use
from sesurgery.planner import Site

ENTRY = ""
"""The value that comes into the unit, as the source of a wire."""


@dataclass(frozen=True)
class Part:
    """A drawn part: its kind (which decides its colour), its text, and its position."""

    kind: str
    text: str
    row: int
    lane: int


@dataclass(frozen=True)
class Wire:
    """A wire from a part (or ENTRY) to a part, down `lane`: the source's, the target's, or a separate one."""

    source: str
    target: str
    lane: int


@dataclass(frozen=True)
class Wiring:
    """A unit's parts by name and its wires; `exits` are read outside the unit."""

    parts: Mapping[str, Part]
    wires: tuple[Wire, ...]
    exits: tuple[str, ...]
    lanes: int
    reads: tuple[str, ...]
    """The values that the unit reads from outside."""


def wire(graph: GraphView, parts: Parts, unit: Unit, sites: tuple[Site, ...], gone: frozenset[str]) -> Wiring:
    """The diagram of a unit with its sites; `gone` are the outputs of removed gates."""
    flow = _Flow(graph, parts, unit, sites)
    rows: dict[str, int] = {}
    for name in flow.order:
        rows[name] = 1 + max((rows[source] for source in flow.sources[name] if source), default=-1)
    lanes = _Lanes(flow, rows)
    drawn = {
        name: Part(*_look(graph, parts, name, flow.inserted, gone), rows[name], lanes.of[name]) for name in flow.order
    }
    read = {source for sources in flow.sources.values() for source in sources}
    exits = tuple(name for name in flow.order if name not in read)
    return Wiring(drawn, tuple(lanes.wires), exits, lanes.count, tuple(dict.fromkeys(flow.reads)))


class _Flow:
    """The dataflow between the drawn parts of a unit."""

    def __init__(self, graph: GraphView, parts: Parts, unit: Unit, sites: tuple[Site, ...]) -> None:
        self.graph, self.gates = graph, parts.gates
        self.inside = {node.name for node in unit.nodes}
        self.drawn = {node.name for node in unit.nodes if parts.drawn(node)}
        self.inserted = {site.key: site for site in sites}
        self.rerouted: dict[Use, str] = {use: site.key for site in sites for use in site.uses}
        self.reads: list[str] = []
        self.known: dict[str, list[str]] = {}
        self.sources: dict[str, list[str]] = {}
        for site in sites:
            first = site.uses[0]
            # What the reader reads now: the value, or a gate behind it that is taken out.
            now = graph[first.user].inputs[first.slot]
            self.sources[site.key] = self._value(now)
        for node in unit.nodes:
            if node.name in self.drawn:
                self.sources[node.name] = self._inputs(node)
        self.order = self._sorted()

    def _inputs(self, node: Node) -> list[str]:
        gate = self.gates.get(node.name)
        slots = range(len(node.inputs)) if gate is None else [gate.slot]
        found = [name for slot in slots for name in self._reading(node, slot)]
        return list(dict.fromkeys(found))

    def _reading(self, node: Node, slot: int) -> list[str]:
        site = self.rerouted.get(Use(node.name, slot))
        return [site] if site else self._value(node.inputs[slot])

    def _value(self, node: Node) -> list[str]:
        if node.name in self.drawn:
            return [node.name]
        if node.name not in self.inside:
            # An input that is not an image is an optional argument of the forward: a mask, a flag.
            if node.constant or (node.op is Op.INPUT and node.shape is None):
                return []
            self.reads.append(node.name)
            return [ENTRY]
        if node.name not in self.known:
            self.known[node.name] = self._inputs(node)
        return self.known[node.name]

    def _sorted(self) -> list[str]:
        order: dict[str, None] = {}

        def visit(name: str) -> None:
            if name and name not in order:
                for source in self.sources[name]:
                    visit(source)
                order[name] = None

        for name in list(self.sources):
            visit(name)
        return list(order)


class _Lanes:
    """The lane of every part and of every wire."""

    def __init__(self, flow: _Flow, rows: Mapping[str, int]) -> None:
        self.flow, self.rows = flow, rows
        self.of: dict[str, int] = {}
        self.wires: list[Wire] = []
        self.count = 0
        self.below: dict[int, int] = defaultdict(int)
        read = {source for sources in flow.sources.values() for source in sources}
        for name in reversed(flow.order):
            if name not in read and name not in self.of:
                self._place(name, self._new())

    def _new(self) -> int:
        self.count += 1
        return self.count - 1

    def _place(self, name: str, lane: int) -> None:
        self.of[name] = lane
        sources = self.flow.sources[name]
        if name in self.flow.graph and self.flow.graph[name].op is not Op.CONCAT:
            # The branch, which is the deeper one, goes down the sum's own lane; the shortcut stands beside it.
            sources = sorted(sources, key=lambda source: -self.rows.get(source, -1))
        for place, source in enumerate(sources):
            down = lane if place == 0 else self._new()
            self.wires.append(Wire(source, name, down))
            if source and source not in self.of:
                self._place(source, down)


def _look(
    graph: GraphView, parts: Parts, name: str, inserted: Mapping[str, Site], gone: frozenset[str]
) -> tuple[str, str]:
    """The kind and the text of a part."""
    if name in inserted:
        return "rule", inserted[name].rule
    node = graph[name]
    if gate := parts.gates.get(name):
        text = {1: "ese", 2: "se"}.get(gate.projections, "gate")
        return ("gone" if name in gone else "gate"), text
    if node.conv:
        return _conv_kind(node.conv), conv_text(node.conv)
    if node.op is Op.CONV:
        return "conv", "conv"
    before = next((source.shape for source in node.inputs if source.shape), None)
    ratio = before[1] / node.shape[1] if before and node.shape and node.shape[1] else 1.0
    if node.op is Op.POOL:
        return "pool", "pool" + (f", /{ratio:.0f}" if ratio > 1.2 else "")
    if node.op is Op.CONCAT:
        return "concat", "concat" + (f", {node.shape[0]}" if node.shape else "")
    named = {Op.ADD: ("sum", "+"), Op.MUL: ("product", "×"), Op.LINEAR: ("linear", "linear")}
    named[Op.GLOBAL_POOL] = ("pool", "global pool")
    last = node.scope.rpartition(".")[2]
    return named.get(node.op) or (
        "other",
        f"up ×{1 / ratio:.0f}" if ratio < 0.8 else "module" if last.isdigit() else last,
    )


def _conv_kind(conv: ConvFacts) -> str:
    if conv.groups > 1 and conv.groups == conv.in_channels:
        return "depthwise"
    return "pointwise" if conv.kernel == (1, 1) else "conv"


def conv_text(conv: ConvFacts) -> str:
    """A convolution in the notation of papers: `3×3, 64, /2`."""
    deep = "dw " if _conv_kind(conv) == "depthwise" else ""
    words = [f"{deep}{conv.kernel[0]}×{conv.kernel[1]}", str(conv.out_channels)]
    if 1 < conv.groups < conv.in_channels:
        words.append(f"g{conv.groups}")
    if max(conv.dilation) > 1:
        words.append(f"d{max(conv.dilation)}")
    if max(conv.stride) > 1:
        words.append(f"/{max(conv.stride)}")
    return ", ".join(words)
