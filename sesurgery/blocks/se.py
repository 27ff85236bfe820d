"""Squeeze-and-Excitation (Hu et al., arXiv 1709.01507, equations 2 to 4).

    z = squeeze(x)                      [N, C, 1, 1]   the mean (or the maximum) over height and width
    s = gate(W2 act(W1 z + b1) + b2)    [N, C, 1, 1]   through a hidden width of C / r
    y = x * s                           [N, C, H, W]

Both projections are 1x1 convolutions, the form that exporters and engines fuse best. With `squeeze: none` (the paper's
NoSqueeze, table 16) they run over the map itself: z = x, and s has a value for every pixel, [N, C, H, W]. It is there
for comparison: it costs H x W times as much, and is no channel gate, so nothing lowers or finds it as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from sesurgery import deferred
from sesurgery.blocks.base import Block, Init, bottleneck_advice
from sesurgery.spec.bounds import Size

if TYPE_CHECKING:
    from torch import nn

    from sesurgery.blocks.modules.se import SEModule as SEModule

Squeeze = Literal["avg", "max", "none"]
Activation = Literal["relu", "relu6", "silu", "gelu", "hard_swish"]
Gate = Literal["sigmoid", "hard_sigmoid", "tanh", "relu"]

deferred.names(__name__, {"SEModule": "sesurgery.blocks.modules.se"})


@dataclass(frozen=True)
class SE(Block):
    """Squeeze-and-Excitation. `width` sets the hidden width itself; otherwise it is channels / reduction.

    The hidden width is rounded down, or to the nearest multiple of `divisor` where one is given, and is at least
    `min_width`. `init: identity` leaves the network's function as it was, and doubles the gate's range to (0, 2).
    `squeeze: none` gates every pixel by its own channels, for comparison.
    """

    volumes: ClassVar[bool] = True

    reduction: Annotated[float, Field(ge=0.0625, le=65536)] = 16
    width: Size | None = None
    min_width: Size = 1
    divisor: Size = 1
    bias: bool = True
    squeeze: Squeeze = "avg"
    activation: Activation = "relu"
    gate: Gate = "sigmoid"
    init: Init = "default"

    def __post_init__(self) -> None:
        if self.width is not None and (self.reduction, self.min_width, self.divisor) != (16, 1, 1):
            raise ValueError("'width' is the hidden width itself: reduction, min_width and divisor do not go with it")
        if self.init == "identity" and not self.bias and self.gate in ("relu", "tanh"):
            raise ValueError(f"'init: identity' needs 'bias: true' with the gate {self.gate}, which is zero at zero")

    def hidden(self, channels: int) -> int:
        """The hidden width for that many channels."""
        if self.width is not None:
            return self.width
        wanted = channels / self.reduction
        if self.divisor > 1:
            # timm's rule for SE in a ResNet: the nearest multiple, and one at least.
            wanted = max(self.divisor, int(wanted + self.divisor / 2) // self.divisor * self.divisor)
        return max(self.min_width, int(wanted))

    def build(self, channels: int) -> nn.Module:
        from sesurgery.blocks.modules.se import SEModule

        return SEModule(channels, self.hidden(channels), self.bias, self.squeeze, self.activation, self.gate, self.init)

    def advice(self, channels: int) -> str | None:
        return bottleneck_advice(self.hidden(channels), channels)


EXAMPLES = (
    SE(),
    SE(reduction=4, bias=False),
    SE(width=10),
    SE(reduction=16, min_width=8),
    SE(reduction=16, divisor=8),
    SE(squeeze="max", activation="silu", gate="hard_sigmoid"),
    SE(squeeze="none", reduction=4),
    SE(gate="tanh"),
    SE(gate="relu"),
    SE(init="identity"),
    SE(init="identity", bias=False),
    SE(init="identity", gate="hard_sigmoid"),
    SE(init="identity", gate="tanh"),
    SE(init="identity", gate="relu"),
)
