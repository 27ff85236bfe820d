"""Squeeze-and-Excitation as a module; `sesurgery.blocks.se` has the equations and the options."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from sesurgery.blocks.base import Init
    from sesurgery.blocks.se import Activation, Gate, Squeeze

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
    """The block itself. `gain` scales the gate and is 1 but for an identity start; `volumes` is for maps with time."""

    volumes = False

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
        """[N, C, H, W] or [N, C, T, H, W] -> the same."""
        if self.volumes:
            # The squeeze is over all positions, whatever axes they lie on.
            return self._scaled(x.flatten(2, 3)).view_as(x)
        return self._scaled(x)

    def _scaled(self, x: Tensor) -> Tensor:
        s: Tensor = self.gate(self.fc2(self.act(self.fc1(self._squeezed(x)))))
        if self.gain != 1.0:
            s = s * self.gain
        return x * s

    def _squeezed(self, x: Tensor) -> Tensor:
        if self.squeeze == "none":
            return x
        return x.mean((2, 3), keepdim=True) if self.squeeze == "avg" else x.amax((2, 3), keepdim=True)


def _start_at_one(last: nn.Conv2d, gate: Gate) -> float:
    """Make the gate one whatever comes in, with a gradient that is not zero; returns the gain that does it.

    A sigmoid only nears one where it no longer learns. So the last projection starts at zero, in the middle of the
    gate's range, and the gate is doubled: exactly one at the start, between zero and two afterwards.
    """
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.constant_(last.bias, {"relu": 1.0, "tanh": math.atanh(0.5)}.get(gate, 0.0))
    return 1.0 if gate == "relu" else 2.0
