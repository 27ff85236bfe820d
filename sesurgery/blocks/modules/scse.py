"""Spatial and channel Squeeze-and-Excitation as a module; `sesurgery.blocks.scse` has the equations and the options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sesurgery.blocks.scse import Combine


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
