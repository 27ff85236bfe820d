"""Gates for blocks made of timm's modules, and how such a block starts as an exact identity.

A sigmoid reaches one only where it no longer learns. But it is one half at zero: with the projection before it at zero
and its range doubled, it is exactly one at the start, learns from the first step, and lies between zero and two after.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from sesurgery.blocks.base import GateName, Init

_GATES: dict[GateName, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "hard_sigmoid": nn.Hardsigmoid}


class Doubled(nn.Module):
    """Twice a gate: between zero and two, and one at zero."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Element-wise."""
        doubled: Tensor = self.gate(x) * 2.0
        return doubled


def gate_layer(name: GateName, init: Init) -> Callable[[], nn.Module]:
    """A factory of gates, as timm's `gate_layer` takes it; doubled where the block starts as an identity."""
    gate = _GATES[name]
    return gate if init == "default" else lambda: Doubled(gate())


def zero(*layers: nn.Module) -> None:
    """Set weight and bias to zero."""
    for layer in layers:
        for parameter in layer.parameters(recurse=False):
            nn.init.zeros_(parameter)
