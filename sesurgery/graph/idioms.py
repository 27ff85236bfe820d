"""Structures in the neutral graph besides residual units: convolution units, squeezed values, stages.

All are found by dataflow, so they work for any network.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from sesurgery.graph.residual import ResidualAdd, residual_adds
from sesurgery.graph.view import GraphView, Node, Op, is_one_pixel


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
        act = _activation(graph, norm or node)
        units.append(ConvUnit(node, norm, act))
    return units


def _activation(graph: GraphView, node: Node) -> Node | None:
    """The activation that alone reads the value, also where it is spelled out as `x * sigmoid(x)`."""
    if (found := _only_reader(graph, node, Op.ACT)) is not None:
        return found
    while len(node.readings) == 1 and (after := graph[node.readings[0].user]).op is Op.PASS:
        node = after
    readers = [graph[use.user] for use in node.readings]
    for curve, product in (readers, readers[::-1]) if len(readers) == 2 else ():
        spelled = curve.op is Op.ACT and product.op is Op.MUL and [use.user for use in curve.readings] == [product.name]
        if spelled and len(product.inputs) == 2:
            return product
    return None


def _only_reader(graph: GraphView, node: Node, op: Op) -> Node | None:
    """The only reader of the value, if it is of that kind; nodes that pass the value on are skipped."""
    while len(node.readings) == 1:
        node = graph[node.readings[0].user]
        if node.op is op:
            return node
        if node.op is not Op.PASS:
            return None
    return None


def squeezed(graph: GraphView) -> frozenset[str]:
    """The names of all one-pixel values pooled from a map, and of those computed from them.

    A map of one pixel that such a value was part of (a concat of pooled and convolved ones) has as little to squeeze.
    """
    found: set[str] = set()
    for node in graph:
        flat = node.shape is None or is_one_pixel(node.shape)
        # A row of channels (1 x 1 x C) that becomes a column (C x 1 x 1) is no smaller, so it is not pooled.
        pooled = node.op is Op.GLOBAL_POOL or (
            node.shape is not None
            and node.op not in (Op.CONV, Op.INPUT)
            and any(
                source.shape is not None and not is_one_pixel(source.shape) and prod(node.shape) < prod(source.shape)
                for source in node.inputs
            )
        )
        # The size of a pooled value, which a reshape may read, is none.
        if flat and not node.constant and (pooled or any(source.name in found for source in node.inputs)):
            found.add(node.name)
    return frozenset(found)


def gives_the_output(graph: GraphView, node: Node) -> bool:
    """Whether there is no layer with weights and no sum between a value and the network's output.

    A detector concatenates its answers, of all resolutions or of all kinds, and may compute boxes and scores from them.
    What is computed from answers and from no other map is part of the output too.
    """
    queue, seen, sums = [(node, False)], {(node.name, False)}, list[Node]()
    reached = False
    while queue:
        value, joined = queue.pop()
        for user in (graph[use.user] for use in value.readings):
            reached |= user.op is Op.OUTPUT
            after = joined or (user.op is Op.CONCAT and _are_answers(graph, user))
            if user.op not in _FREE and not (after and (user.op in _DECODING or _is_expectation(user))):
                return False
            if user.op is Op.ADD:
                sums.append(user)
            if (user.name, after) not in seen:
                seen.add((user.name, after))
                queue.append((user, after))
    names = {name for name, _ in seen}
    # Anchors are no maps, but are made in the dtype of one, so they need not be constant.
    plain = (part.constant or part.shape is None or part.name in names for each in sums for part in each.inputs)
    return reached and all(plain)


_FREE = (Op.OUTPUT, Op.PASS, Op.RESHAPE, Op.POOL, Op.GLOBAL_POOL, Op.OTHER)
_DECODING = (Op.CONCAT, Op.ACT, Op.MUL, Op.ADD)
"""What may happen to answers that are concatenated."""


def _are_answers(graph: GraphView, node: Node) -> bool:
    """Whether a value consists of results of layers that no activation follows, and that no layer reads."""
    if node.constant or node.op in (Op.CONV, Op.LINEAR):
        return True
    if node.op is Op.NORM:
        return node.inputs[0].op is Op.CONV
    parts = [part for part in node.inputs if not part.constant]
    if node.op is not Op.CONCAT and (node.op not in (Op.PASS, Op.RESHAPE, Op.OTHER) or len(parts) != 1):
        return False
    return all(_read_by_none(graph, part) and _are_answers(graph, part) for part in parts)


def _read_by_none(graph: GraphView, node: Node) -> bool:
    return all(graph[use.user].op in (*_FREE, Op.CONCAT) for use in node.readings)


def _is_expectation(node: Node) -> bool:
    """Whether it is the 1 x 1 convolution to one channel that gives the mean of a distribution (arXiv 2006.04388)."""
    return node.conv is not None and node.conv.out_channels == 1 and set(node.conv.kernel) == {1}


def activated(graph: GraphView, node: Node) -> Node:
    """The activation that is the value's only reader, or the value itself."""
    return _activation(graph, node) or node


def stages(graph: GraphView) -> tuple[tuple[int, ...], ...]:
    """Resolutions (height, width), or (time, height, width), in order of first appearance: stage 1 is the first.

    Stages are the resolutions of residual sums, or of convolutions in a network without residual units.
    """
    maps = [found.add.shape for found in residual_adds(graph) if isinstance(found, ResidualAdd)]
    if not maps:
        maps = [unit.end.shape for unit in conv_units(graph)]
    return tuple(dict.fromkeys(shape[1:] for shape in maps if shape is not None))
