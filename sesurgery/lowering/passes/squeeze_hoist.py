"""Move a squeeze before the 1x1 convolution whose output it averages.

In a standard SE block u = W x + b is the last convolution of the branch (its norm folded), the squeeze is z = mean(u)
over height and width, and the gate begins with a projection W1 z + b1. A 1x1 convolution with stride 1 is the same
linear map at every position, and the mean is linear, so they commute:

    mean(W x + b) = W mean(x) + b

Nothing non-linear comes before the first projection, so both are one:

    W1 (W mean(x) + b) + b1 = (W1 W) mean(x) + (W1 b + b1)

The squeeze now reads x, which in a bottleneck has a quarter of the channels of u, and the gate is known before the
convolution runs. So u is read only by the scaling, and a compiler can fuse scaling, sum and ReLU into the convolution:
u is never written.

The pass leaves a squeeze alone if u has another reader, because u is then written anyway, or if x is larger than u,
because reading x then costs more. An activation between convolution and squeeze does not commute with the mean.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import onnx

from sesurgery.lowering.algebra import Array, moved, not_pointwise, too_large
from sesurgery.lowering.base import Edit, Example, Lowered
from sesurgery.lowering.examples import examine
from sesurgery.lowering.rewriting import KeepsGates, Rewrite
from sesurgery.lowering.squeezes import Commuting, commuting, squeezes
from sesurgery.onnxgraph.nodes import attributes


@dataclass(frozen=True)
class SqueezeHoist(KeepsGates):
    """Average a 1x1 convolution's input instead of its output, and fold the convolution into the projection."""

    after: ClassVar[tuple[str, ...]] = ("constant_gates", "linear_to_conv")
    tolerance: ClassVar[float] = 1e-5

    def apply(self, model: onnx.ModelProto) -> Lowered:
        edits: list[Edit] = []
        made: set[str] = set()
        while True:
            rewrite = Rewrite(model)
            turned_down = []
            known = len(edits)
            for squeeze in squeezes(rewrite.flow):
                found = commuting(squeeze, rewrite)
                reason = found if isinstance(found, str) else _refusal(found)
                if isinstance(found, Commuting) and reason is None:
                    made.add(_hoist(found, rewrite))
                    words = moved(found.shape[0], found.out[0])
                    edits.append(Edit(found.where, words, changed=True, nodes=found.nodes))
                elif squeeze.output[0] not in made:
                    # A squeeze that was moved in an earlier step is not listed as rejected.
                    turned_down.append(Edit(squeeze.name, str(reason), changed=False))
            model = rewrite.finish()
            # x may be the output of another 1x1 convolution: then the mean moves again.
            if len(edits) == known:
                return Lowered(model, (*edits, *turned_down))


def _refusal(found: Commuting) -> str | None:
    return not_pointwise(found.over) or too_large(found.shape, found.out)


def _hoist(found: Commuting, rewrite: Rewrite) -> str:
    """Replace the squeeze and the projection; returns the name of the new mean."""
    squeeze, source = found.mean.node, found.over.node.input[0]
    averaged = rewrite.value(f"{source}_mean")
    given = {key: value for key, value in attributes(squeeze).items() if key != "axes"}
    if squeeze.op_type == "ReduceMean":
        made = rewrite.mean(squeeze, source, averaged, (2, 3), keepdims=True)
    else:
        made = rewrite.node(squeeze, squeeze.op_type, [source], averaged, **given)
    rewrite.replace(squeeze, [made])
    fold(found, averaged, rewrite)
    return averaged


def fold(found: Commuting, averaged: str, rewrite: Rewrite, weight: Array | None = None) -> None:
    """Let the projection read `averaged` through `weight` (by default W1 W), with W1 b + b1 added."""
    node = found.projection.node
    own, bias = found.folded
    weight = own if weight is None else weight
    dtype = onnx.helper.tensor_dtype_to_np_dtype(rewrite.flow.dtype(node.input[1]))
    names = [
        # Named after the weight that it replaces, because the module is read from the name.
        rewrite.weight(f"{node.input[1]}_hoisted", weight.astype(dtype)),
        rewrite.weight(f"{node.input[1]}_hoisted_bias", bias.astype(dtype)),
    ]
    rewrite.replace(node, [rewrite.node(node, "Conv", [averaged, *names], node.output[0], kernel_shape=[1, 1])])


_BRANCH = """
    down = Conv(z, w1, b1)
    active = Relu(down)
    up = Conv(active, w2)
    gate = Sigmoid(up)
    scaled = Mul(u, gate)
    y = Add(scaled, r)
}"""
_IO = "(float[N,4,6,6] x, float[N,8,6,6] r) => (float[N,8,6,6] y)"
_SE = "float[3,8,1,1] w1, float[3] b1, float[8,3,1,1] w2"


def _example(name: str, graph: str, changed: int, words: str) -> Example:
    return Example(name, functools.partial(examine, SqueezeHoist(), graph, changed, words))


EXAMPLES = (
    _example(
        "the end of a bottleneck",
        _IO + f"<float[8,4,1,1] w, float[8] b, {_SE}> {{ u = Conv(x, w, b)\n z = GlobalAveragePool(u)" + _BRANCH,
        1,
        "averages 4 channels before the convolution, not 8",
    ),
    _example(
        "a grouped convolution",
        _IO + f"<float[8,2,1,1] w, {_SE}> {{ u = Conv<group=2>(x, w)\n z = GlobalAveragePool(u)" + _BRANCH,
        1,
        "averages 4 channels",
    ),
    _example(
        "an activation before the squeeze",
        _IO + f"<float[8,4,1,1] w, {_SE}> {{ c = Conv(x, w)\n u = Relu(c)\n z = GlobalAveragePool(u)" + _BRANCH,
        0,
        "comes from Relu, not directly from a convolution",
    ),
    _example(
        "another reader of the convolution",
        _IO + f"<float[8,4,1,1] w, {_SE}> {{ c = Conv(x, w)\n z = GlobalAveragePool(c)\n u = Tanh(c)" + _BRANCH,
        0,
        "has another reader than the gate, Tanh",
    ),
    _example(
        "a maximum",
        _IO + f"<float[8,4,1,1] w, {_SE}> {{ u = Conv(x, w)\n z = GlobalMaxPool(u)" + _BRANCH,
        0,
        "it is a maximum",
    ),
    _example(
        "a spatial convolution",
        _IO + f"<float[8,4,3,3] w, {_SE}> {{ u = Conv<pads=[1,1,1,1]>(x, w)\n z = GlobalAveragePool(u)" + _BRANCH,
        0,
        "squeeze_hoist_spatial",
    ),
    _example(
        "an input larger than the output",
        "(float[N,9,6,6] x, float[N,8,6,6] r) => (float[N,8,6,6] y)"
        f"<float[8,9,1,1] w, {_SE}> {{ u = Conv(x, w)\n z = GlobalAveragePool(u)" + _BRANCH,
        0,
        "input is larger than its output",
    ),
)
