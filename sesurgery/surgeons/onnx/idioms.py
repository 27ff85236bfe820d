"""Activations and norms that an ONNX file spells out as several nodes, where PyTorch has one module.

    silu        x * Sigmoid(x)                          hardswish   x * HardSigmoid(x), x * Clip(x + 3, 0, 6) / 6
    mish        x * Tanh(Softplus(x))                   gelu        0.5 * x * (1 + Erf(x / sqrt 2)), and with Tanh
    group norm  Reshape, InstanceNormalization, Reshape, Mul, Add
    batch norm  BatchNormalization, Mul, Add            (caffe kept scale and shift in a layer of their own)
    layer norm  Transpose, LayerNormalization, Transpose (over the channels of a map, all three in one module)

An activation is found by its dataflow: a product of two values that both come from one value x by elementwise steps
with constants alone, one of them through a curve. It ends in that product, or in the constant scale behind it. No
channel gate is one: its way from x leads through a pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from onnx import NodeProto

from sesurgery.onnxgraph.nodes import ONNX_DOMAINS

_CURVES = frozenset({"Sigmoid", "HardSigmoid", "Clip", "Tanh", "Erf", "Softplus"})
_STEPS = _CURVES | {"Add", "Sub", "Mul", "Div", "Pow", "Neg", "Exp", "Min", "Max", "Relu", "Cast"}
_MOST = 12


class Flow(Protocol):
    """What is asked of the graph around a node."""

    @property
    def nodes(self) -> Sequence[NodeProto]:
        """All nodes, in the file's order."""

    @property
    def producer(self) -> Mapping[str, int]:
        """The index of the node that makes a value."""

    @property
    def readers(self) -> Mapping[str, Sequence[int]]:
        """The indices of the nodes that read a value."""

    def data(self, node: NodeProto) -> tuple[str, ...]:
        """The inputs of a node that depend on the network's."""

    def scalar(self, node: NodeProto) -> bool:
        """Whether the constant operand of a node is one number."""

    def scope(self, node: NodeProto) -> str:
        """The module that a node was exported from, empty where the file does not say."""


@dataclass(frozen=True)
class Merged:
    """Nodes that are one operation on `source`: its value is the output of the last of them."""

    source: str
    nodes: tuple[int, ...]
    norm: bool = False


def merged(flow: Flow, outputs: frozenset[str]) -> dict[int, Merged]:
    """Every spelled-out operation by the index of its last node; `outputs` are the graph's, which stay visible."""
    found: dict[int, Merged] = {}
    taken: set[int] = set()
    for index, node in enumerate(flow.nodes):
        if node.domain not in ONNX_DOMAINS or index in taken:
            continue
        look = {
            "Mul": _activation,
            "InstanceNormalization": _group_norm,
            "BatchNormalization": _scaled_norm,
            "LayerNormalization": _norm_of_channels,
        }
        one = look[node.op_type](flow, index, outputs) if node.op_type in look else None
        if one is not None and taken.isdisjoint(one.nodes):
            found[one.nodes[-1]] = one
            taken.update(one.nodes)
    return found


def _activation(flow: Flow, index: int, outputs: frozenset[str]) -> Merged | None:
    product = flow.nodes[index]
    sides = flow.data(product)
    if len(sides) != 2 or sides[0] == sides[1]:
        return None
    chains = [_chain(flow, side) for side in sides]
    # The nearest value that both sides come from.
    shared = [name for name in chains[0] if name in chains[1]]
    if not shared:
        return None
    source = shared[0]
    inside = {index}
    for chain in chains:
        inside.update(flow.producer[name] for name in chain[: chain.index(source)])
    if not any(flow.nodes[at].op_type in _CURVES for at in inside):
        return None
    last = index
    # `/ 6` of a spelled-out hardswish and `* 0.5` of a gelu come after the product.
    while (after := _scale_after(flow, last)) is not None and not _has_whole_gate(flow, inside):
        last = after
        inside.add(after)
    return _closed(flow, source, inside, last, outputs)


def _chain(flow: Flow, name: str) -> list[str]:
    """The value and those it comes from by elementwise steps with constants, nearest first."""
    chain = [name]
    while len(chain) <= _MOST:
        index = flow.producer.get(chain[-1])
        if index is None:
            break
        node = flow.nodes[index]
        inputs = tuple(dict.fromkeys(flow.data(node)))
        if node.op_type not in _STEPS or node.domain not in ONNX_DOMAINS:
            break
        if len(inputs) == 2 and node.op_type in ("Add", "Mul"):
            # x + 0.04 x^3 and x * x * x: both come from x again.
            below = _chain(flow, inputs[0]), _chain(flow, inputs[1])
            joined = [one for one in below[0] if one in below[1]]
            if not joined:
                break
            chain.append(joined[0])
        elif len(inputs) == 1:
            chain.append(inputs[0])
        else:
            break
    return chain


def _scale_after(flow: Flow, index: int) -> int | None:
    """The product with a number, or division by one, that alone reads a node's output."""
    readers = flow.readers.get(flow.nodes[index].output[0], ())
    if len(readers) != 1:
        return None
    node = flow.nodes[readers[0]]
    return readers[0] if node.op_type in ("Mul", "Div") and len(flow.data(node)) == 1 and flow.scalar(node) else None


def _has_whole_gate(flow: Flow, inside: set[int]) -> bool:
    """Whether the curve is a gate in (0, 1) already, so that a scale behind the product belongs to what follows."""
    kinds = {flow.nodes[at].op_type for at in inside}
    scaled = "Div" in kinds or any(
        flow.nodes[at].op_type == "Mul" and len(flow.data(flow.nodes[at])) == 1 for at in inside
    )
    return bool(kinds & {"Sigmoid", "HardSigmoid", "Softplus"}) or ("Clip" in kinds and scaled)


def _group_norm(flow: Flow, index: int, outputs: frozenset[str]) -> Merged | None:
    before = flow.producer.get(flow.nodes[index].input[0])
    if before is None or flow.nodes[before].op_type != "Reshape":
        return None
    inside, last = {before, index}, index
    for expected in ("Reshape", "Mul", "Add"):
        readers = flow.readers.get(flow.nodes[last].output[0], ())
        after = [at for at in readers if flow.nodes[at].op_type == expected and len(flow.data(flow.nodes[at])) == 1]
        if len(readers) != 1 or len(after) != 1:
            if expected == "Reshape":
                return None
            break
        last = after[0]
        inside.add(last)
    return _closed(flow, flow.nodes[before].input[0], inside, last, outputs, norm=True)


def _scaled_norm(flow: Flow, index: int, outputs: frozenset[str]) -> Merged | None:
    inside = [index]
    for expected in ("Mul", "Add"):
        readers = flow.readers.get(flow.nodes[inside[-1]].output[0], ())
        if len(readers) != 1 or flow.nodes[readers[0]].op_type != expected:
            return None
        node = flow.nodes[readers[0]]
        if len(flow.data(node)) != 1 or flow.scalar(node):
            return None
        inside.append(readers[0])
    (source,) = flow.data(flow.nodes[index])[:1] or (None,)
    return _closed(flow, source, set(inside), inside[-1], outputs, norm=True) if source else None


def _norm_of_channels(flow: Flow, index: int, outputs: frozenset[str]) -> Merged | None:
    """A norm of the last axis between a turn of the map, channels last, and the turn back.

    Where the module that holds the norm does not turn the map itself, what stands between may be more than a norm.
    """
    node = flow.nodes[index]
    before = flow.producer.get(node.input[0])
    readers = flow.readers.get(node.output[0], ())
    if before is None or len(readers) != 1 or not _turns(flow.nodes[before], flow.nodes[readers[0]]):
        return None
    turn, back = flow.nodes[before], flow.nodes[readers[0]]
    axis = next((int(one.i) for one in node.attribute if one.name == "axis"), -1)
    rank = len(_permutation(turn))
    if axis not in (-1, rank - 1) or len({flow.scope(turn), flow.scope(node), flow.scope(back)}) != 1:
        return None
    return _closed(flow, turn.input[0], {before, index, readers[0]}, readers[0], outputs, norm=True)


def _turns(turn: NodeProto, back: NodeProto) -> bool:
    """Whether the first puts the channels of maps last, and the second undoes it."""
    there, again = _permutation(turn), _permutation(back)
    last = [0, *range(2, len(there)), 1]
    return len(there) > 2 and there == last and [there[at] for at in again] == sorted(there)


def _permutation(node: NodeProto) -> list[int]:
    if node.op_type != "Transpose":
        return []
    return next((list(one.ints) for one in node.attribute if one.name == "perm"), [])


def _closed(
    flow: Flow, source: str, inside: set[int], last: int, outputs: frozenset[str], norm: bool = False
) -> Merged | None:
    """The group, unless one of its inner values is read from outside or one of its inputs comes from elsewhere."""
    # Walk back, so that side steps (a cube, a sum) are in the group too.
    pending = [last]
    while pending:
        for name in flow.data(flow.nodes[pending.pop()]):
            if name == source:
                continue
            below = flow.producer.get(name)
            if below is None or len(inside) > 2 * _MOST:
                return None
            if below not in inside:
                if flow.nodes[below].op_type not in _STEPS:
                    return None
                inside.add(below)
            pending.append(below)
            if len(pending) > 4 * _MOST:
                return None
    for index in inside - {last}:
        for name in flow.nodes[index].output:
            if name in outputs or any(reader not in inside for reader in flow.readers.get(name, ())):
                return None
    return Merged(source, (*sorted(inside - {last}), last), norm)
