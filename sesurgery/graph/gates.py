"""Channel gates that a network already has, found by their dataflow in any library's code.

A gate multiplies a map v by a factor that is computed only from v and has one value per channel somewhere on the way.
That covers Squeeze-and-Excitation in timm, torchvision, keras or an ONNX file, with 1x1 convolutions or linear layers,
and its variants. The form of the squeeze does not matter (`mean(3).mean(2)`, `sum / (h * w)`, a pool as large as the
map): its result has no resolution. The sum of two such products of one value (scSE) counts as one gate, and so does the
sum of the product and the value itself, `u * s + u`.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sesurgery.graph.view import GraphView, Node, Op, Use, is_one_pixel


@dataclass(frozen=True)
class ChannelGate:
    """`mul` = `value` times a gate computed from `value` by `nodes`; `projections` counts its layers with weights.

    For a parallel channel and spatial gate, `mul` is the sum of both products; for `u * s + u` it is the sum.
    """

    mul: Node
    value: Node
    slot: int
    nodes: tuple[Node, ...]

    @property
    def projections(self) -> int:
        return sum(node.op in (Op.CONV, Op.LINEAR) for node in self.nodes)

    @property
    def scope(self) -> str:
        """The module that owns the gate: the common scope of what computes it."""
        scopes = [node.scope.split(".") for node in self.nodes if node.scope]
        common: list[str] = []
        for parts in zip(*scopes, strict=False):
            if len(set(parts)) > 1:
                break
            common.append(parts[0])
        return ".".join(common)

    @property
    def readings(self) -> tuple[Use, ...]:
        """The uses of the value inside the gate: by the multiplication and by the nodes that compute the gate."""
        own = {self.mul.name, *(node.name for node in self.nodes)}
        return tuple(use for use in self.value.uses if use.user in own)


def channel_gates(graph: GraphView) -> list[ChannelGate]:
    """Every channel gate of the graph, in topological order."""
    found = [gate for node in graph if node.op is Op.MUL and (gate := _gate(node)) is not None]
    gates = {gate.mul.name: gate for gate in (_with_value(graph, _with_spatial(graph, gate)) for gate in found)}
    return list(gates.values())


def names_of(gates: Sequence[ChannelGate]) -> dict[str, str]:
    """What to call each gate, by its product: its module, or the product where a module has several gates or none."""
    scopes = Counter(gate.scope for gate in gates)
    return {gate.mul.name: gate.scope if scopes[gate.scope] == 1 and gate.scope else gate.mul.name for gate in gates}


def _gate(mul: Node) -> ChannelGate | None:
    if len(mul.inputs) != 2 or mul.shape is None:
        return None
    for slot in (0, 1):
        value, factor = mul.inputs[slot], mul.inputs[1 - slot]
        if value is factor or value.shape != mul.shape or value.index > factor.index:
            continue
        nodes = _between(value, factor)
        if nodes and any(_is_squeezed(node, value) for node in nodes):
            return ChannelGate(mul, value, slot, nodes)
    return None


def _is_squeezed(node: Node, value: Node) -> bool:
    """Whether a value computed from a map has one number per channel, also if the map has only one pixel."""
    if node.op is Op.GLOBAL_POOL:
        return True
    if node.shape is None or value.shape is None:
        return False
    return is_one_pixel(node.shape) and not is_one_pixel(value.shape)


def _with_spatial(graph: GraphView, gate: ChannelGate) -> ChannelGate:
    """The gate, combined with a parallel spatial gate if only the sum of the two products is read."""
    total = _only_sum(graph, gate.mul)
    if total is None:
        return gate
    other = total.inputs[0 if total.inputs[1] is gate.mul else 1]
    if other.op is not Op.MUL or len(other.inputs) != 2 or gate.value not in other.inputs or len(other.readings) != 1:
        return gate
    factor = other.inputs[1 - other.inputs.index(gate.value)]
    nodes = _between(gate.value, factor)
    if nodes is None:
        return gate
    both = {node.name: node for node in (*gate.nodes, *nodes, gate.mul, other)}
    return ChannelGate(total, gate.value, gate.slot, tuple(sorted(both.values(), key=lambda node: node.index)))


def _with_value(graph: GraphView, gate: ChannelGate) -> ChannelGate:
    """The gate `1 + s` written as `u * s + u`: its sum, if that is the only reader of the product."""
    total = _only_sum(graph, gate.mul)
    if total is None or gate.value not in total.inputs:
        return gate
    return ChannelGate(total, gate.value, total.inputs.index(gate.value), (*gate.nodes, gate.mul))


def _only_sum(graph: GraphView, node: Node) -> Node | None:
    """The sum of two values that alone reads a value."""
    if len(node.readings) != 1:
        return None
    reader = graph[node.readings[0].user]
    return reader if reader.op is Op.ADD and len(reader.inputs) == 2 else None


def _between(value: Node, factor: Node) -> tuple[Node, ...] | None:
    """What computes `factor` from `value`, in topological order; None if anything else flows into it.

    A factor that has the map's resolution again after its pool is not a channel gate. The search stops at the first
    node before `value`, so its cost is the gate's own size.
    """
    queue = [(-factor.index, factor.name, factor)]
    seen = {factor.name}
    found: list[Node] = []
    meets = False
    while queue:
        _, _, node = heapq.heappop(queue)
        if node is value:
            meets = True
            continue
        if node.index < value.index and not node.constant:
            return None
        found.append(node)
        for source in node.inputs:
            if source.name not in seen:
                seen.add(source.name)
                heapq.heappush(queue, (-source.index, source.name, source))
    return tuple(reversed(found)) if meets else None
