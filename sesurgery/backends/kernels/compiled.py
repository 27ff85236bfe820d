"""The kernels of a compiled network, and the activation bytes that they read and write.

What a kernel moves is what it reads of its inputs and writes of its outputs, each counted once; weights are not
counted. The sum over all kernels is the network's *traffic*. It is known without running anything and is the same from
build to build; where a network is bound by memory, as its elementwise parts are, time follows it. It ignores caches:
bytes that a GPU's second-level cache holds from one kernel to the next cost less than it says.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

SIZES = {"Double": 8, "Int64": 8, "Float": 4, "Int32": 4, "Half": 2, "BFloat16": 2, "Int8": 1, "UInt8": 1, "Bool": 1}


@dataclass(frozen=True)
class Tensor:
    """An activation that a kernel reads or writes; a dimension that the profile leaves open is -1."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def bytes(self, batch: int) -> int:
        """Its size where open dimensions are `batch`."""
        return SIZES[self.dtype] * math.prod(batch if dim < 0 else dim for dim in self.shape)


@dataclass(frozen=True)
class Kernel:
    """One launch: what it is made of, what it moves, and the ONNX nodes that it carries out."""

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]

    @property
    def fused(self) -> str:
        """What the compiler named the fusion after: `CorrMulAddRelu`; its own name for a kernel it did not name."""
        found = re.match(r"__myl_([A-Za-z]+)", self.name)
        return found[1] if found else self.kind


@dataclass(frozen=True)
class Compiled:
    """A compiled network; open dimensions count as `batch`."""

    kernels: tuple[Kernel, ...]
    batch: int = 1

    @property
    def traffic(self) -> int:
        """Activation bytes read and written by all kernels."""
        return sum(self.moved(kernel) for kernel in self.kernels)

    @property
    def fusions(self) -> dict[str, int]:
        """How many kernels there are of each fusion."""
        return dict(Counter(kernel.fused for kernel in self.kernels).most_common())

    def moved(self, kernel: Kernel) -> int:
        """Bytes that one kernel reads and writes."""
        return sum(tensor.bytes(self.batch) for tensor in (*kernel.inputs, *kernel.outputs))
