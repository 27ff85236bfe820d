"""Convolutional Block Attention Module (Woo et al., arXiv 1807.06521, equations 1 to 3), as timm has it.

    c = gate(mlp(mean(x)) + mlp(max(x)))            [N, C, 1, 1]   over height and width, one mlp of hidden width C / r
    x' = x * c
    s = gate(norm(conv_k([mean(x'); max(x')])))     [N, 1, H, W]   over channels
    y = x' * s                                      [N, C, H, W]

With `init: identity` the mlp's last projection and the norm's scale start at zero. The convolution before a norm whose
scale is zero has no gradient in the first step, and learns from the second on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from sesurgery.blocks.base import Block, GateName, Init, bottleneck_advice
from sesurgery.spec.bounds import Size

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class CBAM(Block):
    """Channel attention, then spatial attention. `kernel_size` (odd) is the spatial one, `bias` the mlp's.

    The hidden width is channels / reduction rounded down, and at least `min_width`.
    """

    reduction: Annotated[float, Field(ge=0.0625, le=65536)] = 16
    min_width: Size = 1
    kernel_size: Annotated[int, Field(gt=0, le=255)] = 7
    bias: bool = False
    gate: GateName = "sigmoid"
    init: Init = "default"

    def hidden(self, channels: int) -> int:
        """The hidden width for that many channels."""
        return max(self.min_width, int(channels / self.reduction))

    def build(self, channels: int) -> nn.Module:
        from timm.layers.cbam import CbamModule

        from sesurgery.blocks.modules.gates import gate_layer, zero

        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, found {self.kernel_size}")
        module: nn.Module = CbamModule(
            channels,
            rd_channels=self.hidden(channels),
            spatial_kernel_size=self.kernel_size,
            gate_layer=gate_layer(self.gate, self.init),
            mlp_bias=self.bias,
        )
        if self.init == "identity":
            zero(module.get_submodule("channel.fc2"), module.get_submodule("spatial.conv.bn"))
        return module

    def advice(self, channels: int) -> str | None:
        return bottleneck_advice(self.hidden(channels), channels)


EXAMPLES = (
    CBAM(),
    CBAM(reduction=4, bias=True, kernel_size=3),
    CBAM(min_width=8, gate="hard_sigmoid"),
    CBAM(init="identity"),
    CBAM(init="identity", bias=True, gate="hard_sigmoid"),
)
