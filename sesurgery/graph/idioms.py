"""What people see in a network and the graph does not say: residual units, convolution units, stages.

All of it is read off the dataflow, so that it holds for a network that nobody has seen before.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from sesurgery.graph.view import GraphView, Node, Op, Shape


@dataclass(frozen=True)
class ResidualAdd:
    """A sum of two paths from one fork. `branch_slot` tells which input of `add` the residual branch is."""

    add: Node
    fork: Node
    branch_slot: int
    branch_depth: int
    shortcut_depth: int

    @property
    def branch(self) -> Node:
        return self.add.inputs[self.branch_slot]

    @property
    def shortcut(self) -> Node:
        return self.add.inputs[1 - self.branch_slot]


@dataclass(frozen=True)
class NotResidual:
    """A sum that is no residual unit, and why."""

    add: Node
    why: str


def residual_adds(graph: GraphView) -> list[ResidualAdd | NotResidual]:
    """Every sum of two maps in the graph, told apart by its dataflow, in topological order.

    The residual branch is the path from the fork with more convolutions on it (the longest chain counts); a shortcut is
    the identity or a shorter projection. Two paths of one depth cannot be told apart and are reported as such.
    """
    return [_judge(node) for node in graph if node.op is Op.ADD]


def _judge(add: Node) -> ResidualAdd | NotResidual:
    if len(add.inputs) != 2:
        return NotResidual(add, f"it sums {len(add.inputs)} values, not two")
    first, second = add.inputs
    if first.shape is None or second.shape is None:
        return NotResidual(add, "it does not sum feature maps")
    if first.shape != second.shape:
        return NotResidual(add, f"its inputs differ in shape: {_size(first.shape)} and {_size(second.shape)}")
    if first is second:
        return NotResidual(add, "both inputs are one value")
    fork, region = _fork(first, second)
    if fork is None:
        return NotResidual(add, "its inputs have no common source")
    depths = (_depth(first, fork, region), _depth(second, fork, region))
    if depths[0] == depths[1]:
        deep = "no convolution" if depths[0] == 0 else f"{depths[0]} convolution{'s' if depths[0] > 1 else ''} deep"
        return NotResidual(add, f"both inputs lie {deep}: branch and shortcut look alike")
    branch = 0 if depths[0] > depths[1] else 1
    return ResidualAdd(add, fork, branch, depths[branch], depths[1 - branch])


def _fork(first: Node, second: Node) -> tuple[Node | None, dict[str, Node]]:
    """The latest value that both inputs descend from, and the nodes between it and them.

    Walks back from both inputs at once, always from the latest node, so that only the unit itself is visited and the
    cost over a whole network stays linear.
    """
    reached: dict[str, set[int]] = {first.name: {0}, second.name: {1}}
    queue = [(-first.index, first.name, first), (-second.index, second.name, second)]
    heapq.heapify(queue)
    region: dict[str, Node] = {}
    while queue:
        _, name, node = heapq.heappop(queue)
        if len(reached[name]) == 2:
            return node, region
        region[name] = node
        for source in node.inputs:
            if source.name not in reached:
                reached[source.name] = set()
                heapq.heappush(queue, (-source.index, source.name, source))
            reached[source.name] |= reached[name]
    return None, region


def _depth(end: Node, fork: Node, region: dict[str, Node]) -> int:
    """The most convolutions on any path from the fork to `end`, `end` included and the fork not."""
    depths: dict[str, int] = {fork.name: 0}
    for node in sorted(region.values(), key=lambda node: node.index):
        below = [depths[source.name] for source in node.inputs if source.name in depths]
        # A value of the region that does not come from the fork (a constant, a position code) lies on no path.
        if below:
            depths[node.name] = max(below) + (node.op is Op.CONV)
    return depths.get(end.name, 0)


@dataclass(frozen=True)
class ConvUnit:
    """A convolution with the norm and the activation that follow it directly; `end` is the unit's last value."""

    conv: Node
    norm: Node | None
    act: Node | None

    @property
    def end(self) -> Node:
        return self.act or self.norm or self.conv


def conv_units(graph: GraphView) -> list[ConvUnit]:
    """Every convolution with its norm and activation. A folded norm is absent, so the unit's end does not move."""
    units = []
    for node in graph:
        if node.op is not Op.CONV:
            continue
        norm = _only_reader(graph, node, Op.NORM)
        act = _only_reader(graph, norm or node, Op.ACT)
        units.append(ConvUnit(node, norm, act))
    return units


def _only_reader(graph: GraphView, node: Node, op: Op) -> Node | None:
    if len(node.uses) != 1:
        return None
    reader = graph[node.uses[0].user]
    return reader if reader.op is op else None


def stages(graph: GraphView) -> tuple[tuple[int, int], ...]:
    """Resolutions (height, width) in order of first appearance: stage 1 is the first.

    A stage is where the network adds residuals; a network without residual units has its convolutions' resolutions.
    """
    maps = [found.add.shape for found in residual_adds(graph) if isinstance(found, ResidualAdd)]
    if not maps:
        maps = [unit.end.shape for unit in conv_units(graph)]
    return tuple(dict.fromkeys((shape[1], shape[2]) for shape in maps if shape is not None))


def _size(shape: Shape) -> str:
    return "x".join(str(size) for size in shape)
