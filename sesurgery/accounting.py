"""What a network costs: parameters and multiply-accumulates (MACs), with the convention stated.

MACs are those of convolutions, linear layers and matrix products for one image, as torch's FlopCounterMode counts them
(half of its FLOPs). Norms, activations, pools and element-wise operations are not counted.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)
from torch.utils.flop_counter import FlopCounterMode

CONVENTION = "MACs of convolutions, linear layers and matrix products, one image"

NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException)
"""What fake tensors, which have a shape and no values, raise where a network looks at its data."""


@dataclass(frozen=True)
class Cost:
    """Parameters (each counted once) and MACs for one image."""

    params: int
    macs: int


def cost(module: nn.Module, shape: tuple[int, int, int]) -> Cost:
    """The cost of a module on one image of `shape` (channels, height, width).

    Nothing is computed, unless the module looks at its data: then it is run once, on zeros.
    """
    twin = copy.deepcopy(module).eval()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            flops = _flops(twin, shape)
    except NEEDS_VALUES:
        flops = _flops(copy.deepcopy(module).eval(), shape)
    return Cost(sum(part.numel() for part in module.parameters()), flops // 2)


def _flops(module: nn.Module, shape: tuple[int, int, int]) -> int:
    like = next((part for part in module.parameters() if part.is_floating_point()), torch.empty(0))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), warnings.catch_warnings(), counter:
        warnings.simplefilter("ignore")
        module(torch.zeros(1, *shape, device=like.device, dtype=like.dtype))
    return int(counter.get_total_flops())
