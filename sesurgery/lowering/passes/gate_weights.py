"""Fold a gate that scales a convolution's input into the convolution's weights, if the batch is 1.

If SE follows an activation (MobileNet, EfficientNet, RegNet), the mean cannot be moved before it, and the gate s scales
the input of the next convolution. That is linear, and s is one number for each channel c, so

    conv(s u, W)[o, p] = sum over c, i of  W[o, c, i] s[c] u[c, p + i] = conv(u, W')[o, p],    W'[o, c] = s[c] W[o, c]

also at the border, because zeros stay zeros. Then u is not read to be scaled, and no scaled map is written. Instead the
weights are read and written, and in all but the last stages there are fewer weights than values in the map. The scaling
is a kernel as before, but of weights. TensorRT-RTX 1.7 fuses the same epilogue into a convolution with computed weights
as into one with constant weights.

With two samples there are two W'. That would be a batched matrix product, after which bias and residual sum are a
separate kernel, and in fp32 the map is copied first. So the scaling stays unless the batch is fixed at 1.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import onnx
from onnx import NodeProto

from sesurgery.lowering.base import Edit, Example, Lowered
from sesurgery.lowering.examples import examine
from sesurgery.lowering.rewriting import KeepsGates, Rewrite
from sesurgery.lowering.squeezes import convolution, scalings
from sesurgery.onnxgraph.nodes import attributes


@dataclass(frozen=True)
class GateWeights(KeepsGates):
    """Scale a convolution's weights instead of its input map, if the batch is fixed at 1."""

    after: ClassVar[tuple[str, ...]] = (
        *("constant_gates", "linear_to_conv", "squeeze_hoist", "squeeze_hoist_spatial", "squeeze_layout"),
        *("squeeze_pool", "gate_epilogue"),
    )
    tolerance: ClassVar[float] = 1e-5

    def apply(self, model: onnx.ModelProto) -> Lowered:
        rewrite = Rewrite(model)
        found = scalings(rewrite.flow)
        edits = [_move(scaling, source, gate, rewrite) for scaling, source, gate in found]
        return Lowered(rewrite.finish(), tuple(edits))


def _move(scaling: NodeProto, source: str, gate: str, rewrite: Rewrite) -> Edit:
    flow = rewrite.flow
    readers = rewrite.uses.get(scaling.output[0], [])
    if scaling.output[0] in rewrite.outputs or len(readers) != 1 or readers[0].op_type != "Conv":
        what = " and ".join(sorted({reader.op_type for reader in readers})) or "an output of the network"
        return _left(scaling, f"its product goes to {what}, not to one convolution only")
    (reader,) = readers
    over = convolution(reader, flow)
    if isinstance(over, str):
        return _left(scaling, f"its product goes to {over}")
    if over.groups != 1:
        return _left(scaling, f"its product goes to a convolution in {over.groups} groups")
    channels = over.weight.shape[1]
    if (flow.shape(source) or (None,))[0] != 1:
        return _left(scaling, "the batch is not fixed at 1: every sample would need weights of its own")
    if flow.shape(gate) != (1, channels, 1, 1):
        return _left(scaling, f"its gate is {list(flow.shape(gate) or ())}, not one number for each channel")
    shape = [dim if isinstance(dim, int) else 0 for dim in flow.shape(source) or ()]
    if not over.weight.size < math.prod(shape):
        why = f"the convolution's weights ({over.weight.size}) are not fewer than the map's values ({math.prod(shape)})"
        return _left(scaling, why)
    weight = rewrite.value(f"{reader.input[1]}_scaled")
    given = attributes(reader)
    made = [
        rewrite.node(scaling, "Mul", [reader.input[1], gate], weight),
        rewrite.node(reader, "Conv", [source, weight, *reader.input[2:]], reader.output[0], **given),
    ]
    rewrite.replace(reader, made)
    return Edit(scaling.name, f"it scales the weights of {reader.name}, not its input", changed=True)


def _left(scaling: NodeProto, why: str) -> Edit:
    return Edit(scaling.name, why, changed=False)


_SE = "float[3,8,1,1] w1, float[3] b1, float[8,3,1,1] w2"
_BRANCH = """u = HardSwish(x) z = GlobalAveragePool(u) d = Conv(z, w1, b1) a = Relu(d) e = Conv(a, w2) gate = Sigmoid(e)
    scaled = Mul(u, gate)"""


def _example(name: str, batch: str, outs: int, kernel: str, options: str, changed: int, words: str) -> Example:
    graph = (
        f"(float[{batch},8,6,5] x) => (float[{batch},{outs},P,Q] y) <float[{outs},{kernel}] w, float[{outs}] b, {_SE}>"
        f" {{ {_BRANCH} y = Conv<{options}>(scaled, w, b) }}"
    )
    return Example(name, functools.partial(examine, GateWeights(), graph, changed, words))


def _other(name: str, outputs: str, nodes: str, words: str) -> Example:
    graph = f"(float[1,8,6,5] x) => ({outputs}) <float[4,8,1,1] w, {_SE}> {{ {_BRANCH} {nodes} }}"
    return Example(name, functools.partial(examine, GateWeights(), graph, 0, words))


EXAMPLES = (
    _example("the projection of an inverted bottleneck", "1", 4, "8,1,1", "group=1", 1, "it scales the weights of"),
    _example("3 x 3, a stride, a border", "1", 2, "8,3,3", "strides=[2,1], pads=[1,1,0,1]", 1, "the weights"),
    _example("an open batch", "N", 4, "8,1,1", "group=1", 0, "the batch is not fixed at 1"),
    _example("two samples", "2", 4, "8,1,1", "group=1", 0, "the batch is not fixed at 1"),
    _example("groups", "1", 4, "4,1,1", "group=2", 0, "a convolution in 2 groups"),
    _example("a small map", "1", 32, "8,1,1", "group=1", 0, "weights (256) are not fewer than the map's values (240)"),
    _other("the end of a residual branch", "float[1,8,6,5] y", "y = Add(scaled, x)", "goes to Add"),
    _other(
        "another reader",
        "float[1,4,6,5] y, float[1,8,6,5] t",
        "y = Conv(scaled, w) t = Relu(scaled)",
        "goes to Conv and Relu",
    ),
    _other("an output", "float[1,4,6,5] y, float[1,8,6,5] scaled", "y = Conv(scaled, w)", "not to one convolution"),
)
