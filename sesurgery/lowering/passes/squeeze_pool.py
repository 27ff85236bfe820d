"""Write a gate's squeeze as GlobalAveragePool.

torch exports a squeeze as ReduceMean over height and width. GlobalAveragePool gives the same numbers, and ONNX Runtime
has it in the blocked layout of its convolutions. For ReduceMean it first copies the map to plain NCHW. OpenVINO
compiles both to the same kernel.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import onnx

from sesurgery.lowering.base import Edit, Example, Lowered
from sesurgery.lowering.examples import examine
from sesurgery.lowering.rewriting import KeepsGates, Rewrite
from sesurgery.lowering.squeezes import mean, squeezes
from sesurgery.onnxgraph.dataflow import Dataflow


@dataclass(frozen=True)
class SqueezePool(KeepsGates):
    """Write the squeeze of a gate as GlobalAveragePool, which has kernels for the layout of convolutions."""

    after: ClassVar[tuple[str, ...]] = ("linear_to_conv", "squeeze_hoist", "squeeze_hoist_spatial")
    tolerance: ClassVar[float] = 1e-5

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
        flow = Dataflow(after)
        for squeeze in squeezes(flow):
            found = mean(squeeze, flow)
            if squeeze.op_type == "ReduceMean" and not isinstance(found, str) and found.keeps:
                return f"squeeze {squeeze.name!r} is not a pool"
        return super().ensures(before, after)

    def apply(self, model: onnx.ModelProto) -> Lowered:
        rewrite = Rewrite(model)
        edits = []
        for squeeze in squeezes(rewrite.flow):
            found = mean(squeeze, rewrite.flow)
            if isinstance(found, str):
                edits.append(Edit(squeeze.name, found, changed=False))
            elif not found.keeps:
                why = "its result is (N, C), not (N, C, 1, 1): linear_to_conv comes first"
                edits.append(Edit(squeeze.name, why, changed=False))
            elif squeeze.op_type != "ReduceMean":
                edits.append(Edit(squeeze.name, f"it is {squeeze.op_type} already", changed=False))
            else:
                pool = rewrite.node(squeeze, "GlobalAveragePool", [found.source], found.result)
                rewrite.replace(squeeze, [pool])
                edits.append(Edit(squeeze.name, "the squeeze is a global pool", changed=True))
        return Lowered(rewrite.finish(), tuple(edits))


_GATE = """
    down = Conv(z, w1, b1)
    active = Relu(down)
    up = Conv(active, w2)
    gate = Sigmoid(up)
    y = Mul(x, gate)
}"""
_SE = "int64[2] axes = {2, 3}, float[3,8,1,1] w1, float[3] b1, float[8,3,1,1] w2"


def _example(name: str, shape: str, squeeze: str, changed: int, words: str) -> Example:
    graph = f"(float[N,8,{shape}] x) => (float[N,8,{shape}] y) <{_SE}> {{ z = {squeeze}" + _GATE
    return Example(name, functools.partial(examine, SqueezePool(), graph, changed, words))


EXAMPLES = (
    _example("torch's mean", "5,6", "ReduceMean(x, axes)", 1, "a global pool"),
    _example("height and width open", "H,W", "ReduceMean(x, axes)", 1, "a global pool"),
    _example("a pool", "5,6", "GlobalAveragePool(x)", 0, "GlobalAveragePool already"),
    _example("a maximum", "5,6", "GlobalMaxPool(x)", 0, "it is a maximum"),
)
