"""The units of a picture in execution order, each a set of nodes.

Residual units and multi-branch modules are found by dataflow. Other nodes are grouped by module if a similar module has
a join (`blocks.1.1` has a sum, so `blocks.1.0` is a unit too). The remaining nodes are units of one node.
"""

from __future__ import annotations

import bisect
import heapq
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sesurgery.graph import GraphView, Node, Op, Shape, is_one_pixel
from sesurgery.graph.gates import ChannelGate, channel_gates
from sesurgery.graph.idioms import conv_units
from sesurgery.graph.residual import ResidualAdd, residual_adds
from sesurgery.placements.base import Match
from sesurgery.placements.concat import Concat

MOST_PARTS = 18
"""A unit with more parts than this is too large to draw: the units inside it are drawn instead."""

_JOINS = (Op.ADD, Op.CONCAT, Op.MUL)
_SHOWN = (Op.CONV, Op.LINEAR, Op.POOL, Op.GLOBAL_POOL)


@dataclass(frozen=True)
class Unit:
    """Nodes that are drawn in one card, in topological order. `kind`: residual, concat, module, single or head."""

    kind: str
    scope: str
    nodes: tuple[Node, ...]

    @property
    def end(self) -> Node:
        return self.nodes[-1]

    @property
    def shape(self) -> Shape | None:
        """The last feature map in it."""
        return next((node.shape for node in reversed(self.nodes) if node.shape), None)


class Parts:
    """Which nodes of a graph are drawn: a channel gate is one part, its inside is not drawn."""

    def __init__(self, graph: GraphView) -> None:
        self.gates: dict[str, ChannelGate] = {gate.mul.name: gate for gate in channel_gates(graph)}
        self._inside = {node.name for gate in self.gates.values() for node in gate.nodes}

    def drawn(self, node: Node) -> bool:
        if node.name in self._inside or node.constant:
            return False
        if node.op in _SHOWN:
            return True
        if node.op in _JOINS:
            return sum(not source.constant for source in node.inputs) > 1
        # A module that was taken as a whole has its own path for a name; a bare function has not.
        return node.op is Op.OTHER and node.scope != "" and node.name == node.scope.replace(".", "_")

    def count(self, nodes: Iterable[Node]) -> int:
        return sum(self.drawn(node) for node in nodes)


def units(graph: GraphView, parts: Parts) -> list[Unit]:
    """Every node that is drawn, in exactly one unit; units in the order of their ends."""
    found: list[Unit] = []
    taken: set[str] = set()

    def take(kind: str, scope: str, nodes: Iterable[Node]) -> bool:
        unit = Unit(kind, scope, tuple(sorted(dict.fromkeys(nodes), key=lambda node: node.index)))
        small = 0 < parts.count(unit.nodes) <= MOST_PARTS or kind == "single"
        if small and taken.isdisjoint(node.name for node in unit.nodes):
            taken.update(node.name for node in unit.nodes)
            found.append(unit)
            return True
        return False

    residuals = {item.add.name: item for item in residual_adds(graph) if isinstance(item, ResidualAdd)}
    # From the end: a unit comes before the units inside it.
    for unit in reversed(residuals.values()):
        nodes = [*unit.branch_nodes, *unit.shortcut_nodes, unit.add, *_followers(graph, unit.add)]
        inner = (residuals[node.name].add.scope for node in nodes if node.name in residuals)
        # A skip connection over whole units is drawn as a sum, and the units are drawn separately.
        if all(scope == unit.add.scope for scope in inner):
            take("residual", unit.add.scope, nodes)
    for join in reversed([item.value for item in Concat().select(graph) if isinstance(item, Match)]):
        take("concat", join.scope, [*_between(join), join, *_followers(graph, join)])
    left = [node for node in graph if node.name not in taken and node.op not in (Op.INPUT, Op.OUTPUT)]
    for scope, nodes in _by_module(graph, left, taken):
        if parts.count(nodes) > 1:
            take("module", scope, nodes)
    ends = {unit.conv.name: unit for unit in conv_units(graph)}
    for node in left:
        if node.name not in taken and parts.drawn(node):
            conv, gate = ends.get(node.name), parts.gates.get(node.name)
            after = [part for part in (conv.norm, conv.act) if part] if conv else gate.nodes if gate else ()
            take("single", node.scope or node.name, (node, *(part for part in after if part.name not in taken)))
    return _with_head(graph, sorted(found, key=lambda unit: unit.end.index))


def _followers(graph: GraphView, node: Node) -> list[Node]:
    """The norm and activation that follow the value as its only readers."""
    found: list[Node] = []
    while len(node.readings) == 1 and graph[node.readings[0].user].op in (Op.NORM, Op.ACT, Op.PASS):
        node = graph[node.readings[0].user]
        found.append(node)
    return found


def _between(join: Node) -> list[Node]:
    """The nodes between a join and the latest value that all its inputs descend from."""
    seen = {source.name for source in join.inputs}
    queue = [(-source.index, source.name, source) for source in dict.fromkeys(join.inputs)]
    heapq.heapify(queue)
    found: list[Node] = []
    while queue:
        _, _, node = heapq.heappop(queue)
        if not queue and not node.constant:
            # Latest first: where one is left, all paths have met in it.
            break
        found.append(node)
        for source in node.inputs:
            if source.name not in seen:
                seen.add(source.name)
                heapq.heappush(queue, (-source.index, source.name, source))
    return found


def _by_module(graph: GraphView, left: Sequence[Node], taken: set[str]) -> list[tuple[str, list[Node]]]:
    """The remaining nodes, grouped by the deepest module above them whose name is like that of a module with a join.

    A module with a unit inside is split into the part before that unit and the part after it.
    """
    patterns = {_pattern(node.scope) for node in graph if node.op in (Op.ADD, Op.CONCAT) and node.scope}
    cuts = [node.index for node in graph if node.name in taken]
    groups: dict[tuple[str, int], list[Node]] = {}
    for node in left:
        path = node.scope.split(".")
        prefixes = (".".join(path[:depth]) for depth in range(len(path), 0, -1))
        scope = next((prefix for prefix in prefixes if _pattern(prefix) in patterns), "")
        if scope:
            groups.setdefault((scope, bisect.bisect(cuts, node.index)), []).append(node)
    return [(scope, nodes) for (scope, _), nodes in groups.items()]


def _pattern(scope: str) -> str:
    return re.sub(r"\d+", "#", scope)


def _with_head(graph: GraphView, listed: list[Unit]) -> list[Unit]:
    """The units, with everything after the last feature map merged into one."""

    def flat(unit: Unit) -> bool:
        return unit.kind in ("single", "module") and (unit.shape is None or is_one_pixel(unit.shape))

    cut = len(listed)
    while cut > 0 and flat(listed[cut - 1]):
        cut -= 1
    tail = listed[cut:]
    if len(tail) < 2 or cut == 0 or sum(len(unit.nodes) for unit in tail) > 2 * MOST_PARTS:
        return listed
    before = {node.name for unit in listed[:cut] for node in unit.nodes}
    first = min(node.index for unit in tail for node in unit.nodes)
    nodes = (node for node in graph if node.index >= first and node.name not in before and node.op is not Op.OUTPUT)
    return [*listed[:cut], Unit("head", "head", tuple(nodes))]
