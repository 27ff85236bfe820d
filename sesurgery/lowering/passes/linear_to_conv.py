"""Write the projections of a gate as 1x1 convolutions of (N, C, 1, 1).

A linear layer of the pooled vector, y = A x + a, is the 1x1 convolution with weights A[:, :, None, None] of a map of
one position. Written as Gemm or MatMul it stands between a Flatten and a Reshape and is a separate kernel; compilers
fuse activation and bias into a convolution, but seldom into these. So the whole gate is converted to (N, C, 1, 1): the
squeeze keeps its axes; Flatten, Reshape, Squeeze and Unsqueeze are removed; Gemm (with its alpha, beta and transposed
weights) and MatMul become convolutions; constants of C numbers get the shape (1, C, 1, 1); elementwise operators stay.
An Expand of the gate over the map is removed too, because Mul broadcasts.

A gate that contains anything else (ECA's convolution over channels, a normalisation, a branch of another squeeze) is
left as it is.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from sesurgery.lowering.base import Edit, Example, Lowered
from sesurgery.lowering.examples import examine
from sesurgery.lowering.rewriting import KeepsGates, Rewrite
from sesurgery.lowering.squeezes import Mean, mean, squeezes
from sesurgery.onnxgraph.gates import gate_branches
from sesurgery.onnxgraph.nodes import attributes

LINEAR = frozenset({"Gemm", "MatMul"})
SHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity"})
BY_NUMBER = frozenset(
    {"Relu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Clip", "LeakyRelu", "Elu", "Gelu", "Softplus", "Mish"}
    | {"Add", "Sub", "Mul", "Div", "Min", "Max", "Neg", "Erf", "Exp", "Sqrt", "Pow", "Cast"}
)


class _CannotError(Exception):
    """Why a gate stays as it is."""


@dataclass(frozen=True)
class LinearToConv(KeepsGates):
    """Turn the linear layers of a gate into 1x1 convolutions and remove the reshapes around them."""

    after: ClassVar[tuple[str, ...]] = ("constant_gates",)
    tolerance: ClassVar[float] = 1e-5

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
        was, now = (sum(node.op_type in LINEAR for node in model.graph.node) for model in (before, after))
        if now > was:
            return f"it left {now} linear layers, where {was} were"
        return super().ensures(before, after)

    def apply(self, model: onnx.ModelProto) -> Lowered:
        rewrite = Rewrite(model)
        branches = gate_branches(rewrite.flow)
        edits = []
        for squeeze in squeezes(rewrite.flow):
            nodes = [node for node in rewrite.flow.nodes if branches.get(node.output[0]) == squeeze.output[0]]
            count = sum(node.op_type in LINEAR for node in nodes)
            reshapes = sum(node.op_type in SHAPES for node in nodes[1:])
            if not count and not reshapes:
                edits.append(Edit(squeeze.name, "no Gemm, MatMul or reshape in its gate", changed=False))
                continue
            try:
                gate = _Gate(rewrite, nodes)
            except _CannotError as reason:
                edits.append(Edit(squeeze.name, str(reason), changed=False))
            else:
                gate.carry_out()
                edits.append(Edit(squeeze.name, _done(count, reshapes), changed=True))
        return Lowered(rewrite.finish(), tuple(edits))


def _done(count: int, reshapes: int) -> str:
    if not count:
        return f"{reshapes} reshape{'s' if reshapes > 1 else ''} between its projections removed"
    if count == 1:
        return "1 linear layer of its gate is a 1x1 convolution"
    return f"{count} linear layers of its gate are 1x1 convolutions"


class _Gate:
    """The planned form of a gate; `carry_out` changes the graph."""

    def __init__(self, rewrite: Rewrite, nodes: list[NodeProto]) -> None:
        self.rewrite, self.flow = rewrite, rewrite.flow
        self.inside = {name for node in nodes for name in node.output}
        self.twins: dict[str, str] = {}
        """The (N, C, 1, 1) form of each value of the gate."""
        self.made: list[tuple[NodeProto, list[NodeProto]]] = []
        for node in nodes:
            self._plan(node)
        for value, twin in self.twins.items():
            self._leaves(value, twin)

    def carry_out(self) -> None:
        for node, made in self.made:
            self.rewrite.replace(node, made)
        for value, twin in self.twins.items():
            if value != twin:
                self.rewrite.reread(value, twin)
            for node in self.rewrite.uses.get(value, []):
                if node.op_type == "Expand":
                    self.rewrite.reread(node.output[0], twin)

    def _plan(self, node: NodeProto) -> None:
        value = node.output[0]
        if not self.twins:
            self._squeeze(node)
        elif node.op_type in SHAPES:
            twin = self._twin(node.input[0])
            self._same_numbers(value, self.flow.shape(node.input[0]))
            self.twins[value] = twin
        elif node.op_type in LINEAR:
            self.made.append((node, [self._convolution(node)]))
        elif node.op_type in BY_NUMBER or (node.op_type == "Conv" and node.input[0] in self.twins):
            if len({self._rank(name) for name in node.input if name in self.twins}) > 1:
                raise _CannotError(f"{node.op_type} {node.name!r} joins (N, C) with (N, C, 1, 1)")
            inputs = [self._operand(name, node) for name in node.input]
            self.made.append((node, [self._node(node, node.op_type, inputs, attributes(node))]))
        else:
            raise _CannotError(
                f"{node.op_type} {node.name!r} is in its gate: what it does to (N, C, 1, 1) is not known"
            )

    def _squeeze(self, node: NodeProto) -> None:
        found = mean(node, self.flow)
        if not isinstance(found, Mean):
            raise _CannotError(found)
        if found.keeps:
            self.twins[found.result] = found.result
            return
        twin = self.twins[found.result] = self.rewrite.value(f"{found.result}_nchw")
        self.made.append((node, [self.rewrite.mean(node, found.source, twin, (2, 3), keepdims=True)]))

    def _convolution(self, node: NodeProto) -> NodeProto:
        given = attributes(node)
        weight = self.flow.constant(node.input[1])
        if weight is None or weight.ndim != 2 or given.get("transA"):
            raise _CannotError(f"{node.op_type} {node.name!r} is not a linear layer with constant weights")
        if not given.get("transB"):
            weight = weight.T
        weight = (given.get("alpha", 1.0) * weight).astype(weight.dtype)
        inputs = [self._twin(node.input[0]), self._weight(node.input[1], weight[:, :, None, None])]
        if len(node.input) > 2 and node.input[2]:
            bias = self.flow.constant(node.input[2])
            # Not by its size alone: (C, 1) adds a number to each sample.
            if bias is None or bias.size not in (1, len(weight)) or not _by_channel(bias, 2):
                raise _CannotError(f"{node.op_type} {node.name!r} adds something that is not a constant bias")
            whole = np.broadcast_to((given.get("beta", 1.0) * bias).reshape(-1), len(weight)).astype(weight.dtype)
            inputs.append(self._weight(node.input[2], whole))
        return self._node(node, "Conv", inputs, {"kernel_shape": [1, 1]})

    def _node(self, node: NodeProto, operator: str, inputs: list[str], given: dict[str, object]) -> NodeProto:
        value = node.output[0]
        flat = len(self.flow.shape(value) or ()) != 4
        twin = self.twins[value] = self.rewrite.value(f"{value}_nchw") if flat else value
        return self.rewrite.node(node, operator, inputs, twin, **given)

    def _operand(self, name: str, node: NodeProto) -> str:
        if name in self.twins or not name or node.op_type == "Conv":
            return self.twins.get(name, name)
        constant = self.flow.constant(name)
        if constant is None:
            raise _CannotError(f"{node.op_type} {node.name!r} joins it with {name!r}, which is not constant")
        rank = max((self._rank(each) for each in node.input if each in self.twins), default=0)
        if not _by_channel(constant, rank):
            raise _CannotError(f"{node.op_type} {node.name!r} takes a constant of shape {list(constant.shape)}")
        return name if constant.size == 1 or rank == 4 else self._weight(name, constant.reshape(1, -1, 1, 1))

    def _rank(self, name: str) -> int:
        return len(self.flow.shape(name) or ())

    def _twin(self, name: str) -> str:
        if name not in self.twins:
            raise _CannotError(f"{name!r} comes from another branch")
        return self.twins[name]

    def _weight(self, name: str, array: NDArray[np.generic]) -> str:
        return self.rewrite.weight(f"{name}_1x1", array)

    def _same_numbers(self, value: str, before: tuple[int | str | None, ...] | None) -> None:
        shape = self.flow.shape(value) or ()
        channels = (before or (0, 0))[1]
        if len(shape) not in (2, 4) or shape[1] != channels or any(dim != 1 for dim in shape[2:]):
            raise _CannotError(f"{value!r} has shape {list(shape)}: neither (N, C) nor (N, C, 1, 1)")

    def _leaves(self, value: str, twin: str) -> None:
        """Values that are read outside the gate must already be (N, C, 1, 1)."""
        outside = [node for node in self.rewrite.uses.get(value, []) if node.output[0] not in self.inside]
        flat = len(self.flow.shape(value) or ()) != 4
        if value in self.rewrite.outputs and twin != value:
            raise _CannotError(f"{value!r} is an output of the network")
        for node in outside:
            if flat or node.op_type not in ("Mul", "Expand"):
                raise _CannotError(f"{value!r} is read outside the gate, by {node.op_type} {node.name!r}")
            if node.op_type == "Expand":
                self._only_scales(node)

    def _only_scales(self, node: NodeProto) -> None:
        spread = node.output[0]
        for reader in self.rewrite.uses.get(spread, []):
            others = [name for name in reader.input if name != spread]
            if reader.op_type != "Mul" or [self.flow.shape(name) for name in others] != [self.flow.shape(spread)]:
                raise _CannotError(f"it is spread over a map by {node.name!r}, which {reader.name!r} reads")


def _by_channel(constant: NDArray[np.generic], rank: int) -> bool:
    """Whether a constant has one number, or one a channel, for a value of this rank as it is broadcast."""
    aligned = (*(1,) * (rank - constant.ndim), *constant.shape)
    return len(aligned) == rank and all(size == 1 for axis, size in enumerate(aligned) if axis != 1)


_MAP = "(float[N,8,5,6] x) => (float[N,8,5,6] y)"


def _example(name: str, weights: str, nodes: str, changed: int, words: str) -> Example:
    graph = f"{_MAP} <{weights}> {{ {nodes} y = Mul(x, gate) }}"
    return Example(name, functools.partial(examine, LinearToConv(), graph, changed, words))


_W = "float[8,3] w1, float[3] b1, float[8,3] w2, float[8] b2, int64[4] back = {0, 8, 1, 1}"
EXAMPLES = (
    _example(
        "torch's linear layers",
        _W,
        """z = GlobalAveragePool(x) f = Flatten(z) d = Gemm(f, w1, b1) a = Relu(d)
        u = Gemm<transB=1, alpha=0.5, beta=2.0>(a, w2, b2) s = Sigmoid(u) gate = Reshape(s, back)""",
        1,
        "2 linear layers",
    ),
    _example(
        "MatMul and Add, a hard sigmoid in parts, a mean that drops its axes, and Expand",
        "int64[2] axes = {2, 3}, float[8,8] w, float[8] b, float three = {3.0}, float zero = {0.0}, float six = {6.0}",
        """z = ReduceMean<keepdims=0>(x, axes) p = MatMul(z, w) q = Add(b, p) h = Add(q, three) c = Clip(h, zero, six)
        d = Div(c, six) e = Unsqueeze(d, axes) shape = Shape(x) gate = Expand(e, shape)""",
        1,
        "1 linear layer of its gate is a 1x1 convolution",
    ),
    _example(
        "Keras's convolutions, reshaped between",
        "int64[2] axes = {2, 3}, float[3,8,1,1] w1, float[8,3,1,1] w2, int64[4] a = {-1, 8, 1, 1},"
        "int64[4] b = {-1, 3, 1, 1}",
        """z = GlobalAveragePool(x) s = Squeeze(z, axes) r = Reshape(s, a) c = Conv(r, w1) h = Relu(c) k = Reshape(h, b)
        d = Conv(k, w2) gate = Sigmoid(d)""",
        1,
        "3 reshapes between its projections removed",
    ),
    _example(
        "projections that are convolutions",
        "float[8,8,1,1] w",
        "z = GlobalAveragePool(x) c = Conv(z, w) gate = Sigmoid(c)",
        0,
        "no Gemm, MatMul or reshape",
    ),
    _example(
        "a softmax inside",
        _W,
        """z = GlobalAveragePool(x) f = Flatten(z) d = Gemm(f, w1, b1) a = Softmax(d)
        u = Gemm<transB=1>(a, w2, b2) s = Sigmoid(u) gate = Reshape(s, back)""",
        0,
        "Softmax",
    ),
)
