"""Squeeze-and-Excitation (Hu et al., arXiv 1709.01507, equations 2 to 4).

    z = squeeze(x)                      [N, C, 1, 1]   the mean (or the maximum) over height and width
    s = gate(W2 act(W1 z + b1) + b2)    [N, C, 1, 1]   through a hidden width of C / r
    y = x * s                           [N, C, H, W]

Both projections are 1x1 convolutions, the form that exporters and engines fuse best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from sesurgery.blocks.base import Block, narrow
from sesurgery.spec.bounds import Size

Squeeze = Literal["avg", "max"]
Activation = Literal["relu", "relu6", "silu", "gelu", "hard_swish"]
Gate = Literal["sigmoid", "hard_sigmoid", "tanh", "relu"]
Init = Literal["default", "identity"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "hard_swish": nn.Hardswish,
}
_GATES: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}


class SEModule(nn.Module):
    """The block itself. `gain` scales the gate and is 1 but for an identity start."""

    def __init__(
        self, channels: int, hidden: int, bias: bool, squeeze: Squeeze, activation: Activation, gate: Gate, init: Init
    ) -> None:
        super().__init__()
        self.squeeze = squeeze
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.act = _ACTIVATIONS[activation]()
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.gate = _GATES[gate]()
        self.gain = 1.0
        if init == "identity":
            self.gain = _start_at_one(self.fc2, gate)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        z = x.mean((2, 3), keepdim=True) if self.squeeze == "avg" else x.amax((2, 3), keepdim=True)
        s: Tensor = self.gate(self.fc2(self.act(self.fc1(z))))
        if self.gain != 1.0:
            s = s * self.gain
        return x * s


def _start_at_one(last: nn.Conv2d, gate: Gate) -> float:
    """Make the gate one whatever comes in, with a gradient that is not zero; returns the gain that does it.

    A sigmoid only nears one where it no longer learns. So the last projection starts at zero, in the middle of the
    gate's range, and the gate is doubled: exactly one at the start, between zero and two afterwards.
    """
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.constant_(last.bias, {"relu": 1.0, "tanh": math.atanh(0.5)}.get(gate, 0.0))
    return 1.0 if gate == "relu" else 2.0


@dataclass(frozen=True)
class SE(Block):
    """Squeeze-and-Excitation. `width` sets the hidden width itself; otherwise it is channels / reduction.

    The hidden width is rounded down, or to the nearest multiple of `divisor` where one is given, and is at least
    `min_width`. `init: identity` leaves the network's function as it was, and doubles the gate's range to (0, 2).
    """

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
        return SEModule(channels, self.hidden(channels), self.bias, self.squeeze, self.activation, self.gate, self.init)

    def advice(self, channels: int) -> str | None:
        return narrow(self.hidden(channels), channels)


EXAMPLES = (
    SE(),
    SE(reduction=4, bias=False),
    SE(width=10),
    SE(reduction=16, min_width=8),
    SE(reduction=16, divisor=8),
    SE(squeeze="max", activation="silu", gate="hard_sigmoid"),
    SE(gate="tanh"),
    SE(gate="relu"),
    SE(init="identity"),
    SE(init="identity", bias=False),
    SE(init="identity", gate="hard_sigmoid"),
    SE(init="identity", gate="tanh"),
    SE(init="identity", gate="relu"),
)
