"""Run a graph in float64, to tell an error from rounding.

ONNX's reference evaluator computes it, node by node; torch computes the operators for which the reference needs
minutes. ONNX Runtime has no float64 kernels for convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch.nn import functional

from sesurgery.onnxgraph.numerics import Feeds, Values
from sesurgery.onnxgraph.opset import cast

Array = NDArray[Any]
_FLOAT_ALWAYS = {"Resize": (1, 2), "Upsample": (1,)}
"""Inputs that are always float32."""


class Conv(OpRun):
    """A convolution in any number of dimensions up to three."""

    def _run(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        auto_pad: str | None = None,
        dilations: Sequence[int] | None = None,
        group: int | None = None,
        kernel_shape: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
    ) -> tuple[Array]:
        rank = x.ndim - 2
        strides, dilations = list(strides or [1] * rank), list(dilations or [1] * rank)
        kernel = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilations, strict=True)]
        wide = np.pad(x, [(0, 0), (0, 0), *_borders(x.shape[2:], kernel, strides, pads, auto_pad)])
        run = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
        offset = None if bias is None else _tensor(bias)
        made = run(_tensor(wide), _tensor(weight), offset, stride=strides, dilation=dilations, groups=group or 1)
        return (made.numpy(),)


class MaxPool(OpRun):
    """A maximum over windows, without ceil_mode and without indices."""

    def _run(
        self,
        x: Array,
        auto_pad: str | None = None,
        ceil_mode: int | None = None,
        dilations: Sequence[int] | None = None,
        kernel_shape: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        storage_order: int | None = None,
        strides: Sequence[int] | None = None,
    ) -> tuple[Array]:
        if ceil_mode or kernel_shape is None or len(kernel_shape) != 2:
            raise NotImplementedError("a max pool with ceil_mode or indices")
        strides, dilations = list(strides or [1, 1]), list(dilations or [1, 1])
        kernel = [(size - 1) * step + 1 for size, step in zip(kernel_shape, dilations, strict=True)]
        borders = [(0, 0), (0, 0), *_borders(x.shape[2:], kernel, strides, pads, auto_pad)]
        wide = torch.from_numpy(np.pad(x, borders, constant_values=-np.inf))
        return (functional.max_pool2d(wide, list(kernel_shape), strides, 0, dilations).numpy(),)


class BatchNormalization(OpRun):
    """A batch norm with stored statistics; before opset 14 the reference uses those of the batch."""

    def _run(
        self,
        x: Array,
        gain: Array,
        shift: Array,
        mean: Array,
        variance: Array,
        epsilon: float | None = None,
        momentum: float | None = None,
        spatial: int | None = None,
        training_mode: int | None = None,
    ) -> tuple[Array]:
        if training_mode:
            raise NotImplementedError("a batch norm in training mode")
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale = gain / np.sqrt(variance + (1e-5 if epsilon is None else epsilon))
        return ((x - mean.reshape(shape)) * scale.reshape(shape) + shift.reshape(shape),)


class Erf(OpRun):
    """The error function."""

    def _run(self, x: Array) -> tuple[Array]:
        return (torch.erf(_tensor(x)).numpy(),)


def outputs(model: onnx.ModelProto, samples: Sequence[Feeds]) -> Values:
    """All outputs of a widened graph for several feeds, stacked; raises whatever the reference raises."""
    evaluator = ReferenceEvaluator(model, new_ops=[Conv, MaxPool, BatchNormalization, Erf])
    found: list[Any] = [
        evaluator.run(
            None,
            {name: value.astype(np.float64) if value.dtype == np.float32 else value for name, value in fed.items()},
        )
        for fed in samples
    ]
    return {value.name: np.stack([one[at] for one in found]) for at, value in enumerate(model.graph.output)}


def _tensor(array: Array) -> torch.Tensor:
    # A copy: torch warns of memory that it may not write to.
    return torch.from_numpy(np.array(array))


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes in float64 what `model` computes in float32."""
    wide = cast(model, TensorProto.DOUBLE)
    kept = {tensor.name: tensor for tensor in model.graph.initializer}
    stay_float32 = {
        node.input[slot]
        for node in wide.graph.node
        for slot in _FLOAT_ALWAYS.get(node.op_type, ())
        if len(node.input) > slot and node.input[slot] in kept
    }
    for tensor in wide.graph.initializer:
        if tensor.name in stay_float32:
            tensor.CopyFrom(kept[tensor.name])
    del wide.graph.value_info[:]
    return wide


def _borders(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int] | None,
    mode: str | bytes | None,
) -> list[tuple[int, int]]:
    if mode not in ("SAME_UPPER", "SAME_LOWER", b"SAME_UPPER", b"SAME_LOWER"):
        rank = len(sizes)
        given = list(pads or [0] * 2 * rank) if mode not in ("VALID", b"VALID") else [0] * 2 * rank
        return list(zip(given[:rank], given[rank:], strict=True))
    borders = []
    for size, extent, stride in zip(sizes, kernel, strides, strict=True):
        missing = max(0, (-(-size // stride) - 1) * stride + extent - size)
        small, large = missing // 2, missing - missing // 2
        borders.append((small, large) if mode in ("SAME_UPPER", b"SAME_UPPER") else (large, small))
    return borders
