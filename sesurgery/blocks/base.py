"""The contract of a block: options that are the spec's keys, and a module that keeps the shape of its input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from torch import nn

GateName = Literal["sigmoid", "hard_sigmoid"]
Init = Literal["default", "identity"]
"""How a block starts: as its paper has it, or leaving the network's function as it was."""

_LEAST_HIDDEN = 8


class Block(ABC):
    """What is inserted. Subclasses are frozen dataclasses whose fields are the options under `insert:` in a spec."""

    volumes: ClassVar[bool] = False
    """Whether its modules also take maps [N, C, T, H, W]."""

    @abstractmethod
    def build(self, channels: int) -> nn.Module:
        """A fresh module for maps of that many channels: [N, C, H, W] -> the same shape.

        Raises ValueError if no block of these options exists for the width.
        """

    def advice(self, channels: int) -> str | None:
        """Why a block of these options is a doubtful choice at this width, or None."""
        return None


def bottleneck_advice(hidden: int, channels: int) -> str | None:
    """A warning where the hidden width of a bottleneck is under 8, or None."""
    if hidden >= _LEAST_HIDDEN:
        return None
    return f"the hidden width is {hidden} at {channels} channels: a bottleneck under {_LEAST_HIDDEN} carries little"
