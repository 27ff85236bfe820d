"""The algebra of a mean that moves before a convolution, for ONNX graphs and for networks' graphs alike.

    mean(W x + b) = W mean(x) + b                        1x1, stride 1, no border
    mean(W * x + b) = sum over taps of W_t mean_t(x) + b  any other: mean_t over the positions under tap t

Everything is computed in float64, without a framework. Functions return the result, or a string with the reason why
there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Sizes = tuple[int, int, int]
"""C, H, W of a map; H and W are 0 where they are not fixed."""
Span = tuple[int, int]

MOST_TAPS = 2**26
"""Values of the constant that picks taps out of a map: 512 MB while it is made."""


@dataclass(frozen=True)
class Kernel:
    """A 2-D convolution with constant weights W (O, I / groups, kh, kw) and bias b (O)."""

    weight: Array
    bias: Array
    strides: Span
    dilations: Span
    pads: tuple[int, int, int, int]
    """Top, left, bottom, right."""
    groups: int

    @property
    def pointwise(self) -> bool:
        """Whether it is 1x1 with stride 1 and no padding: the same linear map of channels at every position."""
        return self.weight.shape[2:] == (1, 1) and self.strides == (1, 1) and not any(self.pads)

    @property
    def dense(self) -> Array:
        """Its weights as one group, (O, I, kh, kw): block diagonal, zeros between groups."""
        outs, ins, *kernel = self.weight.shape
        dense = np.zeros((outs, ins * self.groups, *kernel))
        for group in range(self.groups):
            rows = slice(group * outs // self.groups, (group + 1) * outs // self.groups)
            dense[rows, group * ins : (group + 1) * ins] = self.weight[rows]
        return dense

    def taps(self, shape: Sizes, out: Sizes) -> Array:
        """1 for the input positions that each tap reads, else 0: (kh kw, H, W)."""
        kh, kw = self.weight.shape[2:]
        rows = tap_rows(shape[1], out[1], kh, self.strides[0], self.dilations[0], self.pads[0])
        columns = tap_rows(shape[2], out[2], kw, self.strides[1], self.dilations[1], self.pads[1])
        taken: Array = np.einsum("ih,jw->ijhw", rows, columns).reshape(kh * kw, shape[1], shape[2])
        return taken


def folded(first: Array, bias: Array, over: Kernel) -> tuple[Array, Array]:
    """A projection W1 (r, O), b1 (r) composed with a convolution: W1 W as (r, I, kh, kw), and W1 b + b1."""
    return np.einsum("ro,oikl->rikl", first, over.dense), first @ over.bias + bias


def tap_rows(size: int, out: int, taps: int, stride: int, dilation: int, pad: int) -> Array:
    """1 for the input rows that each tap reads at one of the `out` output positions, else 0: (taps, size)."""
    rows = np.arange(out) * stride + np.arange(taps)[:, None] * dilation - pad
    found = np.zeros((taps, size))
    tap, position = np.nonzero((rows >= 0) & (rows < size))
    found[tap, rows[tap, position]] = 1
    return found


def share_of(positions: int) -> float:
    """A power of two near 1 / positions: scaling by it is exact."""
    return float(2.0 ** -math.ceil(math.log2(positions)))


# --- reasons why a mean is not moved ---------------------------------------------------------------------------------


def not_from_convolution(what: str) -> str:
    return f"what it averages comes from {what}, not directly from a convolution: the mean cannot be moved before it"


def used_elsewhere(reader: str) -> str:
    return f"the convolution's output has another reader than the gate, {reader}: it must be written anyway"


def read_by(count: int) -> str:
    return f"{count} nodes read the mean: a convolution folds into one projection only"


def no_projection(what: str) -> str:
    return f"the gate continues with {what}: there is no projection to fold the convolution into"


def not_pointwise(kernel: Kernel) -> str | None:
    """Why squeeze_hoist leaves a convolution to squeeze_hoist_spatial, or None."""
    if kernel.pointwise:
        return None
    return "the convolution is not 1x1 with stride 1 and no border: squeeze_hoist_spatial is for those"


def not_spatial(kernel: Kernel, shape: Sizes, out: Sizes) -> str | None:
    """Why squeeze_hoist_spatial leaves a convolution alone, or None."""
    if kernel.pointwise:
        return "the convolution is 1x1 with stride 1: squeeze_hoist is for those"
    if not all(shape) or not all(out):
        return "height and width are not fixed: the border terms depend on them"
    kh, kw = kernel.weight.shape[2:]
    if (values := max(kh * kw * math.prod(shape[1:]), kh * out[1], kw * out[2])) > MOST_TAPS:
        return f"the constant would have {values} values, {MOST_TAPS} at most are made"
    if kh * kw > shape[0]:
        positions = math.prod(shape[1:])
        sizes = f"{kh * kw} x {positions} against {shape[0]} x {positions} values"
        return f"{kh} x {kw} taps of {shape[0]} channels: the constant would be larger than the map ({sizes})"
    return None


def too_large(shape: Sizes, out: Sizes) -> str | None:
    """Why averaging the convolution's input costs more than averaging its output, or None."""
    ins, outs, unit = math.prod(shape), math.prod(out), "values a sample"
    if not all(shape) or not all(out):
        # The positions are the same for 1x1; elsewhere the caller has asked for fixed sizes.
        ins, outs, unit = shape[0], out[0], "channels"
    if ins <= outs:
        return None
    return f"the convolution's input is larger than its output ({ins} {unit}, not {outs})"


def moved(ins: int, outs: int) -> str:
    return f"the squeeze averages {ins} channels before the convolution, not {outs} after it"


def moved_taps(kh: int, kw: int, channels: int) -> str:
    return f"the squeeze averages {kh} x {kw} taps of {channels} channels before the convolution"
