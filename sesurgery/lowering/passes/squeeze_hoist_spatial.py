"""Move a squeeze before a k x k, strided, padded, dilated or grouped convolution, exactly, also at the border.

Let u = conv(x) + b with kernel kh x kw, stride s, dilation d, padding t (top), l (left), output Ho x Wo. Written out by
taps, and averaged on both sides,

    u[o, p, q]  = b[o] + sum over c, i, j of  W[o, c, i, j] x[c, p s + i d - t, q s + j d - l]      (x = 0 outside)
    mean(u)[o]  = b[o] + sum over c, i, j of  W[o, c, i, j] M[c, i, j]
    M[c, i, j]  = 1 / (Ho Wo) * sum over p, q of  x[c, p s + i d - t, q s + j d - l]

Tap (i, j) averages x over a shifted, strided window, which selects some rows and some columns. With

    A[i, h] = 1  if h = p s + i d - t for a p in 0 .. Ho - 1, else 0        (kh x H)
    B[j, w] = 1  if w = q s + j d - l for a q in 0 .. Wo - 1, else 0        (kw x W)

all taps of a channel are M = A x B^T / (Ho Wo), exactly, also where the border cuts the window off. For all channels at
once, with x channels last and flattened to (H W, C), that is one matrix product with a constant of kh kw rows,

    M^T = K x,    K[(i, j), (h, w)] = A[i, h] B[j, w] / (Ho Wo)             (kh kw x H W)

which reads x once and writes kh kw numbers per channel. The convolution is linear in M, so it folds into the gate's
first projection, which becomes a 1x1 convolution of kh kw C channels, in the order of the product's output:

    W1 (W M + b) + b1 = (W1 W) M + (W1 b + b1)

K holds powers of two instead of 1 / (Ho Wo), and the folded weights hold the rest. Powers of two are exact in fp16, and
no sum of Ho Wo shares of at most 1 / (Ho Wo) is larger than the largest value of x. So in a network lowered to fp16 the
product may be computed in fp16 (converting x to fp32 first would copy it), and the rest of the gate is fp32.

The form of the sums follows from how TensorRT-RTX 1.7 compiles them:

- A conversion to fp32 is not fused into a matrix product or a convolution, so it would be a separate kernel between
  the two. It is fused into a sum of products. So the projection is Mul by its weights, ReduceSum and Add: one kernel
  with the conversion and ReLU (`CastMulSumReshAddRelu`), and one kernel in fp32 too.
- A matrix product over an odd number of positions copies the map first, to add a position. In that case M is a mean of
  x times A[i, h] B[j, w], in one kernel (`TranReshMulCastMean`) that reads the map in its layout and writes fp32. The
  projection stays a convolution. It needs kh kw multiplications per value, so for an even number of positions the
  matrix product is used.

A model that already computes in 16 bits has nothing to convert, and gets a matrix product and a convolution.

Two products, first rows and then columns, need smaller constants but one more kernel per gate, and write kh W C numbers
between them. Sums over slices give the same numbers with one kernel each, and a copy of x if layouts differ.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from sesurgery.lowering.algebra import Array, moved_taps, not_spatial, share_of, too_large
from sesurgery.lowering.base import Edit, Example, Lowered
from sesurgery.lowering.examples import examine
from sesurgery.lowering.passes.squeeze_hoist import fold
from sesurgery.lowering.rewriting import KeepsGates, Rewrite
from sesurgery.lowering.squeezes import Commuting, commuting, squeezes

NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class SqueezeHoistSpatial(KeepsGates):
    """Average a spatial convolution's input under every tap instead of its output."""

    after: ClassVar[tuple[str, ...]] = ("linear_to_conv", "squeeze_hoist")
    tolerance: ClassVar[float] = 1e-5

    def apply(self, model: onnx.ModelProto) -> Lowered:
        rewrite = Rewrite(model)
        edits = []
        for squeeze in squeezes(rewrite.flow):
            found = commuting(squeeze, rewrite)
            reason = found if isinstance(found, str) else _refusal(found)
            if reason is not None:
                edits.append(Edit(squeeze.name, reason, changed=False))
            elif isinstance(found, Commuting):
                edits.append(_hoist(found, rewrite))
        return Lowered(rewrite.finish(), tuple(edits))


def _refusal(found: Commuting) -> str | None:
    return not_spatial(found.over, found.shape, found.out) or too_large(found.shape, found.out)


def _hoist(found: Commuting, rewrite: Rewrite) -> Edit:
    over, dtype = found.over, rewrite.flow.dtype(found.over.node.input[0])
    (channels, height, width), (_, out_height, out_width) = found.shape, found.out
    kh, kw = over.weight.shape[2:]
    taken = over.taps(found.shape, found.out).reshape(kh * kw, height * width)
    weight = found.folded[0].transpose(0, 2, 3, 1).reshape(-1, kh * kw * channels) / (out_height * out_width)
    if dtype not in NARROW and height * width % 2:
        averaged = _means(found, taken, rewrite)
        fold(found, averaged, rewrite, weight[:, :, None, None] * (height * width))
    else:
        share = share_of(out_height * out_width)
        averaged = _shares(found, taken * share, rewrite)
        if dtype in NARROW:
            fold(found, averaged, rewrite, weight[:, :, None, None] / share)
        else:
            _sum(found, averaged, weight / share, rewrite)
    return Edit(found.where, moved_taps(kh, kw, channels), changed=True, nodes=found.nodes)


def _shares(found: Commuting, shares: Array, rewrite: Rewrite) -> str:
    """The taps of each channel as a matrix product of a constant (taps x positions) and the map: (N, taps C, 1, 1)."""
    squeeze, stem = found.mean.node, f"{found.over.node.input[0]}_taps"
    constant = rewrite.weight(f"{stem}_shares", shares.astype(_numpy(found, rewrite)))
    lined, taps = rewrite.value(f"{stem}_lines"), rewrite.value(f"{stem}_sums")
    made = [
        *_lines(found, lined, (0, shares.shape[1], found.shape[0]), rewrite),
        rewrite.node(squeeze, "MatMul", [constant, lined], taps),
    ]
    return _one_position(found, taps, made, rewrite)


def _means(found: Commuting, taken: Array, rewrite: Rewrite) -> str:
    """The same as means over all positions of the map times 1 or 0."""
    squeeze, stem = found.mean.node, f"{found.over.node.input[0]}_taps"
    constant = rewrite.weight(f"{stem}_taken", taken[:, :, None].astype(_numpy(found, rewrite)))
    lined, chosen_, taps = (rewrite.value(f"{stem}_{part}") for part in ("lines", "chosen", "sums"))
    made = [
        *_lines(found, lined, (0, 1, taken.shape[1], found.shape[0]), rewrite),
        rewrite.node(squeeze, "Mul", [lined, constant], chosen_),
        rewrite.mean(squeeze, chosen_, taps, (2,), keepdims=False),
    ]
    return _one_position(found, taps, made, rewrite)


def _lines(found: Commuting, lined: str, shape: tuple[int, ...], rewrite: Rewrite) -> list[NodeProto]:
    """The map channels last, with its positions in one axis."""
    squeeze, source = found.mean.node, found.over.node.input[0]
    last = rewrite.value(f"{source}_taps_nhwc")
    flat = rewrite.weight(f"{source}_taps_flat", np.array(shape, np.int64))
    return [
        rewrite.node(squeeze, "Transpose", [source], last, perm=[0, 2, 3, 1]),
        rewrite.node(squeeze, "Reshape", [last, flat], lined),
    ]


def _one_position(found: Commuting, taps: str, made: list[NodeProto], rewrite: Rewrite) -> str:
    """Replace the squeeze by `made` (N, taps, C), reshaped to (N, taps C, 1, 1)."""
    squeeze, stem = found.mean.node, f"{found.over.node.input[0]}_taps"
    count = math.prod(found.over.weight.shape[2:]) * found.shape[0]
    one = rewrite.weight(f"{stem}_one", np.array([0, count, 1, 1], np.int64))
    averaged = rewrite.value(f"{stem}_means")
    rewrite.replace(squeeze, [*made, rewrite.node(squeeze, "Reshape", [taps, one], averaged)])
    return averaged


def _sum(found: Commuting, averaged: str, weight: Array, rewrite: Rewrite) -> None:
    """The projection of `averaged` by `weight` (r x taps C) as a sum of products, with W1 b + b1 added."""
    node, dtype = found.projection.node, _numpy(found, rewrite)
    # Added up over the axis of channels: over a last axis, made by another reshape, OpenVINO 2026.4 computes something
    # else where the map is int8.
    factors = rewrite.weight(f"{node.input[1]}_hoisted", weight.T[:, :, None].astype(dtype))
    bias = rewrite.weight(f"{node.input[1]}_hoisted_bias", found.folded[1][:, None].astype(dtype))
    stem = f"{averaged}_projected"
    axes = rewrite.weight(f"{stem}_axes", np.array([1], np.int64))
    one = rewrite.weight(f"{stem}_one", np.array([0, len(weight), 1, 1], np.int64))
    products, sums, moved = (rewrite.value(f"{stem}_{part}") for part in ("products", "sums", "moved"))
    made = [
        rewrite.node(node, "Mul", [averaged, factors], products),
        rewrite.node(node, "ReduceSum", [products, axes], sums, keepdims=1),
        rewrite.node(node, "Add", [sums, bias], moved),
        rewrite.node(node, "Reshape", [moved, one], node.output[0]),
    ]
    rewrite.replace(node, made)


def _numpy(found: Commuting, rewrite: Rewrite) -> np.dtype[np.generic]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(rewrite.flow.dtype(found.over.node.input[0])))


_BRANCH = """
    z = ReduceMean(u, axes)
    down = Conv(z, w1, b1)
    active = Relu(down)
    up = Conv(active, w2)
    gate = Sigmoid(up)
    scaled = Mul(u, gate)
    y = Add(scaled, r)
}"""
_SE = "int64[2] axes = {2, 3}, float[3,8,1,1] w1, float[3] b1, float[8,3,1,1] w2"


def _example(name: str, given: str, out: str, weight: str, options: str, changed: int, words: str) -> Example:
    graph = (
        f"(float[N,{given}] x, float[N,8,{out}] r) => (float[N,8,{out}] y)"
        f"<float[{weight}] w, float[8] b, {_SE}> {{ u = Conv<{options}>(x, w, b){_BRANCH}"
    )
    return Example(name, functools.partial(examine, SqueezeHoistSpatial(), graph, changed, words))


EXAMPLES = (
    _example("the end of a basic block", "8,6,5", "6,5", "8,8,3,1", "pads=[1,0,1,0]", 1, "3 x 1 taps of 8 channels"),
    _example("a stride", "2,9,8", "5,4", "8,2,1,2", "strides=[2,2], pads=[0,0,0,1]", 1, "1 x 2 taps of 2"),
    _example("1x1 with a stride", "2,9,8", "5,4", "8,2,1,1", "strides=[2,2]", 1, "1 x 1 taps of 2"),
    _example("SAME_UPPER", "4,7,6", "7,6", "8,4,2,2", 'auto_pad="SAME_UPPER"', 1, "2 x 2 taps of 4"),
    _example("groups", "8,7,6", "7,6", "8,4,3,2", "group=2, dilations=[2,1], pads=[2,0,2,1]", 1, "3 x 2 taps"),
    _example("1x1 with stride 1", "4,6,6", "6,6", "8,4,1,1", "group=1", 0, "squeeze_hoist is for those"),
    _example("few channels", "8,6,5", "6,5", "8,8,3,3", "pads=[1,1,1,1]", 0, "3 x 3 taps of 8 channels: the constant"),
    _example("a larger input", "8,9,8", "5,4", "8,8,2,2", "strides=[2,2], pads=[1,1,0,0]", 0, "larger than its output"),
    _example("an open height", "8,H,5", "H,5", "8,8,3,3", "pads=[1,1,1,1]", 0, "height and width are not fixed"),
)
