"""The contract of a pass on a network's graph: the counterpart of an ONNX pass, of the same name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import fx

from sesurgery.lowering.base import Edit


class NetworkPass(ABC):
    """One rewrite of a graph of ATen operations. A second run changes nothing."""

    after: ClassVar[tuple[str, ...]] = ()
    """Passes, by name, that come before this one where both are run."""
    tolerance: ClassVar[float]
    """The largest difference of an output, relative to its largest value, that its arithmetic explains in float32."""

    @abstractmethod
    def apply(self, module: fx.GraphModule) -> tuple[Edit, ...]:
        """Change the graph in place; what was done, and what was left alone with the reason."""
