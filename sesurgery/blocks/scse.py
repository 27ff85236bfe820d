"""Concurrent spatial and channel Squeeze-and-Excitation (Roy et al., arXiv 1803.02579).

    c = gate(W2 relu(W1 mean(x)))       [N, C, 1, 1]   channel excitation (cSE), through a hidden width of C / r
    s = gate(w x)                       [N, 1, H, W]   spatial excitation (sSE), a 1 x 1 convolution to one channel
    y = x * c + x * s                   [N, C, H, W]   `combine: add`, as in the paper
    y = max(x * c, x * s)               [N, C, H, W]   `combine: max`, from the longer version, arXiv 1808.08127

The paper takes r = 2. With `init: identity` both projections before a gate start at zero, where a gate is one half:
the sum of two halves is the identity, and for the maximum the gates are doubled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sesurgery.blocks._gates import GateName, Init, gate_layer, zero
from sesurgery.blocks.base import Block, narrow
from sesurgery.spec.bounds import Size

Combine = Literal["add", "max"]


class SCSEModule(nn.Module):
    """The block itself."""

    def __init__(self, channels: int, hidden: int, bias: bool, combine: Combine, gate: nn.Module) -> None:
        super().__init__()
        self.combine = combine
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.conv = nn.Conv2d(channels, 1, 1, bias=bias)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        channel: Tensor = self.gate(self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))))
        spatial: Tensor = self.gate(self.conv(x))
        if self.combine == "add":
            return x * (channel + spatial)
        return torch.maximum(x * channel, x * spatial)


@dataclass(frozen=True)
class SCSE(Block):
    """Spatial and channel Squeeze-and-Excitation side by side.

    The hidden width of the channel part is channels / reduction rounded down, and at least `min_width`.
    """

    reduction: Annotated[float, Field(ge=0.0625, le=65536)] = 2
    min_width: Size = 1
    combine: Combine = "add"
    bias: bool = False
    gate: GateName = "sigmoid"
    init: Init = "default"

    def hidden(self, channels: int) -> int:
        """The hidden width for that many channels."""
        return max(self.min_width, int(channels / self.reduction))

    def build(self, channels: int) -> nn.Module:
        # The sum of two gates at one half is one already.
        gate = gate_layer(self.gate, "default" if self.combine == "add" else self.init)
        module = SCSEModule(channels, self.hidden(channels), self.bias, self.combine, gate())
        if self.init == "identity":
            zero(module.fc2, module.conv)
        return module

    def advice(self, channels: int) -> str | None:
        return narrow(self.hidden(channels), channels)


EXAMPLES = (
    SCSE(),
    SCSE(combine="max", reduction=16, min_width=8, bias=True),
    SCSE(gate="hard_sigmoid"),
    SCSE(init="identity"),
    SCSE(init="identity", combine="max", bias=True),
)
