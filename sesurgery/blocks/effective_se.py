"""Effective Squeeze-and-Excitation (Lee and Park, CenterMask, arXiv 1911.06667), as timm has it.

    s = gate(W mean(x) + b)             [N, C, 1, 1]   one C x C projection: no channel is lost in a bottleneck
    y = x * s                           [N, C, H, W]

It has C * C weights, SE has 2 * C * C / r: eight times those of SE at r = 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sesurgery.blocks.base import Block, GateName, Init

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class EffectiveSE(Block):
    """Effective Squeeze-and-Excitation."""

    gate: GateName = "hard_sigmoid"
    init: Init = "default"

    def build(self, channels: int) -> nn.Module:
        from timm.layers import EffectiveSEModule

        from sesurgery.blocks.modules.gates import gate_layer, zero

        module: nn.Module = EffectiveSEModule(channels, gate_layer=gate_layer(self.gate, self.init))
        if self.init == "identity":
            zero(module.fc)  # type: ignore[arg-type]
        return module


EXAMPLES = (
    EffectiveSE(),
    EffectiveSE(gate="sigmoid"),
    EffectiveSE(init="identity"),
    EffectiveSE(init="identity", gate="sigmoid"),
)
