"""The contract of a pass on a network's graph, the counterpart of the ONNX pass of the same name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import fx

from sesurgery.lowering.base import Edit


class NetworkPass(ABC):
    """One rewrite of a graph of ATen operations. A second run changes nothing."""

    after: ClassVar[tuple[str, ...]] = ()
    """Names of passes that run before this one if both are requested."""
    tolerance: ClassVar[float]
    """The largest accepted difference of an output in float32, relative to the output's largest value."""

    @abstractmethod
    def apply(self, module: fx.GraphModule) -> tuple[Edit, ...]:
        """Change the graph in place; returns what was changed, and what was left alone with the reason."""
