"""Gather-Excite (Hu et al., arXiv 1810.12348), by timm's forward.

    g = gather(x)                       [N, C, H / e, W / e]   over an extent e; 0 is the whole map, [N, C, 1, 1]
    y = x * gate(resize(excite(g)))     [N, C, H, W]           nearest neighbours

The paper's GE-theta- is `gather: avg` (no parameters), GE-theta is `gather: conv` (log2(e) depthwise 3 x 3 convolutions
of stride 2, each with its norm, ReLU between), GE-theta+ adds `excite: true` (two 1 x 1 convolutions, hidden width
of C / r). `extent: 0, gather: avg, excite: true` is Squeeze-and-Excitation. The paper's conv gather over the whole map
needs the map's size, which a block is not told.

With `init: identity` what comes before the gate starts at zero: the last projection, or the scale of the last norm.
Layers before that one have no gradient in the first step, and learn from the second on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sesurgery.blocks.base import Block, GateName, Init, bottleneck_advice

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class GatherExcite(Block):
    """Gather-Excite. `extent` is 0 (the whole map) or a power of two; `reduction` goes with `excite: true`."""

    extent: Annotated[int, Field(ge=0, le=65536)] = 8
    gather: Literal["avg", "conv"] = "conv"
    excite: bool = False
    reduction: Annotated[float, Field(ge=0.0625, le=65536)] = 16
    gate: GateName = "sigmoid"
    init: Init = "default"

    def __post_init__(self) -> None:
        if self.gather == "conv" and self.extent == 0:
            raise ValueError("'gather: conv' over the whole map ('extent: 0') needs the map's size: take 'gather: avg'")
        if self.init == "identity" and self.gather == "avg" and not self.excite:
            raise ValueError("'init: identity' needs parameters: 'gather: conv' or 'excite: true'")
        if self.reduction != 16 and not self.excite:
            raise ValueError("'reduction' is the hidden width of 'excite: true', which is not given")

    def hidden(self, channels: int) -> int:
        """The hidden width of `excite` for that many channels."""
        return max(1, int(channels / self.reduction))

    def build(self, channels: int) -> nn.Module:
        from timm.layers import ConvMlp
        from timm.layers import GatherExcite as TimmGatherExcite

        from sesurgery.blocks.modules.gates import gate_layer, zero

        if self.extent == 1 or self.extent.bit_count() > 1:
            raise ValueError(f"extent must be 0 or a power of two from 2 on, found {self.extent}")
        module: nn.Module = TimmGatherExcite(
            channels, extent=self.extent, use_mlp=False, gate_layer=gate_layer(self.gate, self.init)
        )
        # timm's own constructor hands its sub-layers wrong arguments (`*dd` for `**dd`, in 1.0.31 still): its
        # parameter-free form is built, and the learned parts are put where its forward looks for them.
        if self.gather == "conv":
            module.gather = _strided(channels, self.extent)
        if self.excite:
            module.mlp = ConvMlp(channels, self.hidden(channels))
        if self.init == "identity":
            zero(module.mlp.fc2 if self.excite else module.gather[-1])  # type: ignore[arg-type, index, union-attr]
        return module

    def advice(self, channels: int) -> str | None:
        return bottleneck_advice(self.hidden(channels), channels) if self.excite else None


def _strided(channels: int, extent: int) -> nn.Sequential:
    from torch import nn

    layers: list[nn.Module] = []
    for _ in range(extent.bit_length() - 1):
        layers += [
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
    # The gate follows the last norm.
    return nn.Sequential(*layers[:-1])


EXAMPLES = (
    GatherExcite(),
    GatherExcite(extent=0, gather="avg"),
    GatherExcite(extent=4, gather="avg"),
    GatherExcite(extent=2, excite=True, reduction=4),
    GatherExcite(extent=0, gather="avg", excite=True, gate="hard_sigmoid"),
    GatherExcite(init="identity"),
    GatherExcite(extent=4, excite=True, init="identity", gate="hard_sigmoid"),
)
