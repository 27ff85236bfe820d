"""Fold whatever scales and shifts a convolution's output channel by channel into the convolution.

    y = s (W x + b) + t    =>    y = (s W) x + (s b + t)

That is a batch norm, s = g / sqrt(v + e) and t = h - s m; a bias written as an Add after the convolution (Paddle,
TensorFlow); or the Mul and Add after a norm in Caffe. A chain of these is folded as a whole. The intermediate values
must have no other reader. Computed in float64 and rounded once to the weights' type.

Every runtime does the same when it loads a file. Other passes need the folded weights, so this one runs first.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from onnx import NodeProto

from sesurgery.lowering.algebra import Array
from sesurgery.lowering.base import Edit, Example, Lowered
from sesurgery.lowering.examples import examine
from sesurgery.lowering.rewriting import KeepsGates, Rewrite
from sesurgery.onnxgraph.gates import gate_branches
from sesurgery.onnxgraph.nodes import attributes

STEPS = ("BatchNormalization", "Mul", "Add", "Sub", "Div")
Affine = tuple[Array, Array]
"""The factor and the summand of each channel."""


@dataclass(frozen=True)
class FoldNorms(KeepsGates):
    """Fold norms, biases and constant factors after a convolution into it."""

    tolerance: ClassVar[float] = 1e-5

    def apply(self, model: onnx.ModelProto) -> Lowered:
        rewrite = Rewrite(model)
        branches = gate_branches(rewrite.flow)
        edits = []
        for node in rewrite.flow.nodes:
            if node.op_type in ("Conv", "Gemm", "MatMul") and (found := _behind(node, rewrite, branches)) is not None:
                last, affine, names = found
                _fold(node, last, affine, rewrite)
                edits.append(Edit(node.name, f"{', '.join(names)} behind it part of its weights", changed=True))
        return Lowered(rewrite.finish(), tuple(edits))


def _behind(
    node: NodeProto, rewrite: Rewrite, branches: dict[str, str]
) -> tuple[NodeProto, Affine, tuple[str, ...]] | None:
    """The last folded node, the combined scale and shift of each channel, and the operators; None if nothing folds."""
    flow = rewrite.flow
    weight = flow.constant(node.input[1])
    bias = flow.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    given = attributes(node)
    if weight is None or weight.ndim < 2 or (len(node.input) > 2 and node.input[2] and bias is None):
        return None
    if node.op_type != "Conv" and (weight.ndim != 2 or given.get("transA") or given.get("alpha", 1.0) != 1.0):
        return None
    if node.op_type == "Gemm" and bias is not None and given.get("beta", 1.0) != 1.0:
        return None
    outs = weight.shape[0] if node.op_type == "Conv" or given.get("transB") else weight.shape[1]
    if node.op_type == "Gemm" and bias is not None and _by_channel(bias, outs, 2, 1) is None:
        # It adds a number to each sample.
        return None
    rank = len(flow.shape(node.output[0]) or ())
    # A linear layer by MatMul has its channels last, whatever the rank.
    axis = 1 if node.op_type != "MatMul" else rank - 1
    if rank < 2:
        return None
    scale, shift = np.ones(outs), np.zeros(outs)
    last, names = node, []
    while (reader := _only_reader(last, rewrite)) is not None:
        # MatMul has no bias: its sum stays an Add, which linear_to_conv and runtimes fold.
        step = _affine(reader, last.output[0], outs, rank, axis, rewrite)
        if step is None or (node.op_type == "MatMul" and step[1].any()):
            break
        # A gate's hard sigmoid begins with a constant sum, relu6(x + 3) / 6, and must stay recognisable.
        if reader.output[0] in branches and _is_number(reader, last.output[0], rewrite):
            break
        scale, shift = scale * step[0], shift * step[0] + step[1]
        names.append(reader.op_type)
        last = reader
    return (last, (scale, shift), tuple(names)) if names else None


def _only_reader(node: NodeProto, rewrite: Rewrite) -> NodeProto | None:
    readers = rewrite.uses.get(node.output[0], [])
    return readers[0] if len(readers) == 1 and node.output[0] not in rewrite.outputs else None


def _is_number(node: NodeProto, value: str, rewrite: Rewrite) -> bool:
    return any(
        constant is not None and constant.size == 1
        for constant in (rewrite.flow.constant(name) for name in node.input if name != value)
    )


def _affine(node: NodeProto, value: str, outs: int, rank: int, axis: int, rewrite: Rewrite) -> Affine | None:
    """The factor and summand that a node applies to each channel of a value, or None."""
    flow = rewrite.flow
    if node.op_type not in STEPS or len([name for name in node.output if name]) > 1:
        return None
    if node.op_type == "BatchNormalization":
        parts = [flow.constant(name) for name in node.input[1:]]
        given = attributes(node)
        if node.input[0] != value or axis != 1 or given.get("training_mode"):
            return None
        if any(part is None or part.shape != (outs,) for part in parts):
            return None
        gain, offset, mean, variance = (part.astype(np.float64) for part in parts if part is not None)
        scale = gain / np.sqrt(variance + given.get("epsilon", 1e-5))
        return scale, offset - mean * scale
    slot = 1 if node.input[0] == value else 0
    constant = flow.constant(node.input[slot])
    if constant is None or node.input[0] == node.input[1] or not np.issubdtype(constant.dtype, np.floating):
        return None
    numbers = _by_channel(constant, outs, rank, axis)
    if numbers is None or (slot == 0 and node.op_type == "Div") or (node.op_type == "Div" and not numbers.all()):
        return None
    one, none = np.ones(outs), np.zeros(outs)
    if node.op_type == "Mul":
        return numbers, none
    if node.op_type == "Div":
        return 1 / numbers, none
    if node.op_type == "Add":
        return one, numbers
    return (one, -numbers) if slot else (-one, numbers)


def _by_channel(constant: np.ndarray, outs: int, rank: int, axis: int) -> Array | None:
    """A constant that broadcasts over a value as one number per channel."""
    if constant.size == 1 and constant.ndim <= rank:
        return np.full(outs, float(constant.reshape(())))
    if constant.ndim > rank or constant.size != outs:
        return None
    place = axis - (rank - constant.ndim)
    return constant.astype(np.float64).reshape(-1) if place >= 0 and constant.shape[place] == outs else None


def _fold(node: NodeProto, last: NodeProto, affine: Affine, rewrite: Rewrite) -> None:
    flow, given = rewrite.flow, attributes(node)
    scale, shift = affine
    weight = flow.constant(node.input[1])
    assert weight is not None
    bias = flow.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if node.op_type == "Conv" or given.get("transB"):
        folded = weight.astype(np.float64) * scale.reshape(-1, *[1] * (weight.ndim - 1))
    else:
        folded = weight.astype(np.float64) * scale
    offset = shift if bias is None else shift + scale * np.broadcast_to(bias.astype(np.float64).reshape(-1), len(scale))
    inputs = [node.input[0], rewrite.weight(f"{node.input[1]}_folded", folded.astype(weight.dtype))]
    if node.op_type != "MatMul":
        inputs.append(rewrite.weight(f"{node.input[1]}_folded_bias", offset.astype(weight.dtype)))
    # It takes the name of the last output, so its readers stay as they are.
    made = rewrite.node(node, node.op_type, inputs, last.output[0], **given)
    made.name = node.name
    rewrite.replace(last, [made])


def _example(name: str, weights: str, nodes: str, changed: int, words: str) -> Example:
    graph = f"(float[N,4,6,5] x) => (float[N,8,6,5] y) <float[8,4,1,1] w, {weights}> {{ {nodes} }}"
    return Example(name, functools.partial(examine, FoldNorms(), graph, changed, words))


_NORM = "float[8] g, float[8] h, float[8] m, float[8] v = {1.0, 2.0, 0.5, 1.0, 1.5, 1.0, 3.0, 0.25}"
EXAMPLES = (
    _example("a norm", _NORM, "u = Conv(x, w) y = BatchNormalization(u, g, h, m, v)", 1, "BatchNormalization"),
    _example("Paddle's bias", "float[1,8,1,1] b", "u = Conv(x, w) y = Add(u, b)", 1, "Add behind it"),
    _example(
        "Caffe's norm and scale",
        f"{_NORM}, float[8,1,1] s, float[8] b",
        "u = Conv(x, w, b) n = BatchNormalization(u, g, h, m, v) t = Mul(s, n) y = Sub(t, s)",
        1,
        "BatchNormalization, Mul, Sub",
    ),
    _example(
        "a number each",
        "float a = {0.5}, float c = {3.0}",
        "u = Conv(x, w) t = Mul(u, a) p = Add(c, t) y = Relu(p)",
        1,
        "Mul, Add",
    ),
    _example("another reader", "float[8,1,1] b", "u = Conv(x, w) t = Add(u, b) y = Mul(u, t)", 0, ""),
    _example("a constant of the map's size", "float[8,6,5] b", "u = Conv(x, w) y = Add(u, b)", 0, ""),
    _example("a sum of two maps", "float[8,4,1,1] k", "u = Conv(x, w) t = Conv(x, k) y = Add(u, t)", 0, ""),
    _example(
        "a gate's hard sigmoid stays in parts",
        "float[8,8,1,1] k, float three = {3.0}, float zero = {0.0}, float six = {6.0}",
        """u = Conv(x, w) z = GlobalAveragePool(u) p = Conv(z, k) h = Add(p, three) c = Clip(h, zero, six)
        gate = Div(c, six) y = Mul(u, gate)""",
        0,
        "",
    ),
)
