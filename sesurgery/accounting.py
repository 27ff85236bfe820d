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
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

CONVENTION = "MACs of convolutions, linear layers and matrix products, one image"


@dataclass(frozen=True)
class Cost:
    """Parameters (each counted once) and MACs for one image."""

    params: int
    macs: int


def cost(module: nn.Module, shape: tuple[int, int, int]) -> Cost:
    """The cost of a module on one image of `shape` (channels, height, width); nothing is computed."""
    twin = copy.deepcopy(module).eval()
    parameter = next((part for part in twin.parameters() if part.is_floating_point()), None)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with FakeTensorMode(allow_non_fake_inputs=True), counter:
            image = torch.empty(1, *shape, device="cpu" if parameter is None else parameter.device)
            twin(image if parameter is None else image.to(parameter.dtype))
    return Cost(sum(part.numel() for part in module.parameters()), counter.get_total_flops() // 2)
