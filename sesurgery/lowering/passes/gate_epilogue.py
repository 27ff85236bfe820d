"""Write a convolution that a gate scales as a transposed convolution.

After squeeze_hoist the squeeze does not read u = W x + b any more, so the gate is known before the convolution runs,
and the compiler could fuse the scaling, the residual sum and ReLU into the convolution's epilogue. TensorRT-RTX 1.7
does not do that for a factor that differs between samples (batches over 1), nor for fp16 1x1 convolutions of small
maps, which it turns into matrix products. It does both for a *transposed* convolution (`DecoMulAddRelu`), in fp32 and
fp16, at every batch.

With stride 1 the two differ only in the order of their weights:

    conv(x, W)[o, p]            = sum over c, i of  W[o, c, i] x[c, p + i d - t]
    conv_transposed(x, V)[o, p] = sum over c, i of  V[c, o, i] x[c, p - i d + t']

so V[c, o, i] = W[o, c, k - 1 - i] and t' = (k - 1) d - t: weights transposed (within each group) and mirrored, padding
swapped. For 1x1 that is the transpose of a matrix, and both are the same matrix product. For larger kernels a compiler
may be faster with one of the two: `spatial` = false leaves those alone.
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
from sesurgery.lowering.squeezes import Convolution, convolution, scalings


@dataclass(frozen=True)
class GateEpilogue(KeepsGates):
    """Write a convolution that is read only by a gate's scaling as a transposed one, to fuse the scaling into it."""

    after: ClassVar[tuple[str, ...]] = ("linear_to_conv", "squeeze_hoist", "squeeze_hoist_spatial", "squeeze_layout")
    tolerance: ClassVar[float] = 1e-5

    spatial: bool = True

    def apply(self, model: onnx.ModelProto) -> Lowered:
        rewrite = Rewrite(model)
        edits = []
        for scaling, name, _ in scalings(rewrite.flow):
            node = rewrite.flow.producer.get(name)
            if node is not None and node.op_type == "Conv":
                edits.append(self._turn(node, scaling, rewrite))
            elif node is not None and node.op_type == "ConvTranspose":
                edits.append(Edit(node.name, "it is a transposed convolution already", changed=False))
            else:
                maker = f"{node.op_type} {node.name!r}" if node is not None else "a graph input"
                why = f"what it scales comes from {maker}: there is no convolution to fuse it into"
                edits.append(Edit(scaling.name, why, changed=False))
        return Lowered(rewrite.finish(), tuple(edits))

    def _turn(self, node: NodeProto, scaling: NodeProto, rewrite: Rewrite) -> Edit:
        others = [reader.name for reader in rewrite.uses[node.output[0]] if reader.name != scaling.name]
        if others or node.output[0] in rewrite.outputs:
            read_by = f"{others[0]!r} reads it too" if others else "it is an output of the network"
            return Edit(node.name, f"{read_by}: it must be written anyway", changed=False)
        over = convolution(node, rewrite.flow)
        if isinstance(over, str):
            return Edit(node.name, f"it is {over}", changed=False)
        kernel = over.weight.shape[2:]
        if over.strides != (1, 1):
            return Edit(node.name, "because of its stride, the transposed convolution has another size", changed=False)
        if kernel != (1, 1) and not self.spatial:
            return Edit(node.name, f"{kernel[0]} x {kernel[1]}: only 1x1 is enabled", changed=False)
        reach = [(size - 1) * step for size, step in zip(kernel, over.dilations, strict=True)] * 2
        pads = [length - pad for length, pad in zip(reach, over.pads, strict=True)]
        if min(pads) < 0:
            return Edit(node.name, "its padding is wider than its kernel", changed=False)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(rewrite.flow.dtype(node.input[1]))
        weight = rewrite.weight(f"{node.input[1]}_transposed", transposed(over).astype(dtype))
        given = {"group": over.groups, "kernel_shape": kernel, "dilations": over.dilations, "pads": pads}
        inputs = [node.input[0], weight, *node.input[2:]]
        rewrite.replace(node, [rewrite.node(node, "ConvTranspose", inputs, node.output[0], **given)])
        return Edit(node.name, f"transposed, so that {scaling.name} can be its epilogue", changed=True)


def transposed(over: Convolution) -> Array:
    """(O, I / groups, kh, kw) -> (I, O / groups, kh, kw), mirrored."""
    outs, ins, *kernel = over.weight.shape
    by_group = over.weight.reshape(over.groups, outs // over.groups, ins, *kernel)
    swapped = by_group.transpose(0, 2, 1, 3, 4).reshape(over.groups * ins, outs // over.groups, *kernel)
    return np.ascontiguousarray(swapped[:, :, ::-1, ::-1])


_GATE = """
    down = Conv(z, w1, b1)
    active = Relu(down)
    up = Conv(active, w2)
    gate = Sigmoid(up)
    scaled = Mul(gate, u)
    y = Add(scaled, r)
}"""


def _example(name: str, step: GateEpilogue, weight: str, conv: str, changed: int, words: str) -> Example:
    graph = (
        "(float[N,4,6,5] x, float[N,8,6,5] r) => (float[N,8,6,5] y)"
        f"<float[{weight}] w, float[8] b, float[3,4,1,1] w1, float[3] b1, float[8,3,1,1] w2>"
        f"{{ z = GlobalAveragePool(x)\n {conv} {_GATE}"
    )
    return Example(name, functools.partial(examine, step, graph, changed, words))


_POINTWISE = GateEpilogue(spatial=False)
EXAMPLES = (
    _example("1x1", GateEpilogue(), "8,4,1,1", "u = Conv(x, w, b)", 1, "can be its epilogue"),
    _example("1x1 in groups", GateEpilogue(), "8,2,1,1", "u = Conv<group=2>(x, w, b)", 1, "transposed"),
    _example("3x3", GateEpilogue(), "8,4,3,3", "u = Conv<pads=[1,1,1,1]>(x, w, b)", 1, "transposed"),
    _example(
        "3x3 not wanted", _POINTWISE, "8,4,3,3", "u = Conv<pads=[1,1,1,1]>(x, w, b)", 0, "3 x 3: only 1x1 is enabled"
    ),
    _example(
        "an uneven kernel in groups with dilation",
        GateEpilogue(),
        "8,2,3,2",
        "u = Conv<group=2, pads=[3,0,1,1], dilations=[2,1]>(x, w, b)",
        1,
        "transposed",
    ),
    _example("an activation between", GateEpilogue(), "8,4,1,1", "c = Conv(x, w, b)\n u = Relu(c)", 0, ""),
    _example("a stride", GateEpilogue(), "8,4,1,1", "u = Conv<strides=[2,2], pads=[3,3,2,1]>(x, w, b)", 0, "stride"),
)
