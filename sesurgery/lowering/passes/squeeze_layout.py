"""Write the squeeze channels last, in fp32.

A compiler for convolutions stores maps channels last (NHWC). For a mean over the last two axes of an NCHW value it
copies the whole map to NCHW first: one more write and one more read of the map. The same mean written as

    Cast to fp32 -> Transpose to NHWC -> ReduceMean over axes 1, 2 -> Cast back -> Transpose to NCHW

reads the map in its own layout: TensorRT-RTX compiles it to one kernel (`TranCastMeanCast`) that reads the map once and
sums in fp32 for any type of the map, also with a dynamic batch. The Casts are left out if the map is fp32. The last
Transpose moves C numbers. With Reshape and ReduceMean the map is copied if the batch is dynamic; AveragePool needs
fixed sizes; sums, products with ones and means in two steps cost more kernels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import onnx
from onnx import TensorProto

from sesurgery.lowering.base import Edit, Example, Lowered
from sesurgery.lowering.examples import examine
from sesurgery.lowering.rewriting import KeepsGates, Rewrite
from sesurgery.lowering.squeezes import Mean, mean, squeezes

NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class SqueezeLayout(KeepsGates):
    """Average the map channels last, in fp32, so that no compiler copies it to NCHW for that."""

    after: ClassVar[tuple[str, ...]] = ("linear_to_conv", "squeeze_hoist", "squeeze_hoist_spatial")
    tolerance: ClassVar[float] = 1e-5

    def apply(self, model: onnx.ModelProto) -> Lowered:
        rewrite = Rewrite(model)
        edits = []
        for squeeze in squeezes(rewrite.flow):
            found = mean(squeeze, rewrite.flow)
            if isinstance(found, Mean):
                _turn(found, rewrite)
                edits.append(Edit(squeeze.name, "the squeeze averages channels last, in fp32", changed=True))
            else:
                edits.append(Edit(squeeze.name, found, changed=False))
        return Lowered(rewrite.finish(), tuple(edits))


def _turn(found: Mean, rewrite: Rewrite) -> None:
    node, source, result = found.node, found.source, found.result
    dtype = rewrite.flow.dtype(source)
    made = []
    if dtype in NARROW:
        wide = rewrite.value(f"{source}_fp32")
        made.append(rewrite.node(node, "Cast", [source], wide, to=TensorProto.FLOAT))
        source = wide
    last = rewrite.value(f"{source}_nhwc")
    made.append(rewrite.node(node, "Transpose", [source], last, perm=[0, 2, 3, 1]))
    averaged = rewrite.value(f"{result}_nhwc") if found.keeps else result
    wide = rewrite.value(f"{averaged}_fp32") if dtype in NARROW else averaged
    made.append(rewrite.mean(node, last, wide, (1, 2), keepdims=found.keeps))
    if dtype in NARROW:
        made.append(rewrite.node(node, "Cast", [wide], averaged, to=dtype))
    if found.keeps:
        made.append(rewrite.node(node, "Transpose", [averaged], result, perm=[0, 3, 1, 2]))
    rewrite.replace(node, made)


_GATE = """
    down = Conv(z, w1, b1)
    active = Relu(down)
    up = Conv(active, w2)
    gate = HardSigmoid(up)
    y = Mul(x, gate)
}"""
_SE = "float[3,8,1,1] w1, float[3] b1, float[8,3,1,1] w2"


def _example(name: str, graph: str, changed: int, words: str) -> Example:
    return Example(name, functools.partial(examine, SqueezeLayout(), graph, changed, words))


EXAMPLES = (
    _example(
        "a global average pool",
        f"(float[N,8,5,6] x) => (float[N,8,5,6] y) <{_SE}> {{ z = GlobalAveragePool(x)" + _GATE,
        1,
        "channels last",
    ),
    _example(
        "a mean that drops its axes, height and width open",
        """(float[N,8,H,W] x) => (float[N,8,H,W] y)
        <int64[2] axes = {2, 3}, float[8,8] w, int64[4] back = {0, 8, 1, 1}> {
            z = ReduceMean<keepdims=0>(x, axes)
            p = MatMul(z, w)
            s = Sigmoid(p)
            gate = Reshape(s, back)
            y = Mul(x, gate)
        }""",
        1,
        "channels last",
    ),
    _example(
        "a maximum",
        f"(float[N,8,5,6] x) => (float[N,8,5,6] y) <{_SE}> {{ z = GlobalMaxPool(x)" + _GATE,
        0,
        "it is a maximum",
    ),
    _example(
        "a pool that scales nothing",
        "(float[N,8,5,6] x) => (float[N,8,1,1] y) { y = GlobalAveragePool(x) }",
        0,
        "",
    ),
)
