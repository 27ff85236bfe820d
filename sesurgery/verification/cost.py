"""What each block costs, and whether the prices add up to the whole tax.

Engines with some of the blocks race engines with the others (`sesurgery.verification.weighing`). The whole tax comes
from a race of its own, of which no price knows: that the prices add up to it is a finding. Blocks that are alike
(block, channels, map) may be weighed together, which tells the price of one with less error and in fewer engines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from sesurgery.workspace.measurements import Kind, Of

BytesOf = Literal["layers", "nodes"]


@dataclass(frozen=True)
class Seconds:
    """A time in seconds per run with its confidence interval; `low` may be negative."""

    value: float
    low: float
    high: float

    @property
    def reach(self) -> float:
        """Half the interval."""
        return (self.high - self.low) / 2

    @property
    def told(self) -> bool:
        """Whether it differs significantly from zero."""
        return not self.low <= 0 <= self.high

    def over(self, count: int) -> Seconds:
        """The share of one block if several were measured together."""
        return Seconds(self.value / count, self.low / count, self.high / count)


@dataclass(frozen=True)
class BlockPrice:
    """What one block costs in time, and by the engine's own profile where it has one.

    `kernels` are the layers that the compiled engine has more for it and `bytes` what is read and written more
    (`Prices.bytes_of`); None if they are not known. `alike` blocks were weighed together, and each has its share.
    """

    key: str
    module: str
    stage: int | None
    channels: int
    height: int
    width: int
    time: Seconds
    params: int
    macs: int
    profile: float | None = None
    kernels: int | None = None
    bytes: int | None = None
    alike: int = 1


@dataclass(frozen=True)
class Prices:
    """The prices of an engine's blocks. `whole` is the engine's time, `total` the cost of all blocks together.

    `shared` is what the engine pays once for having any block, however many: say, for asking how large its batch is.
    None where it was not measured.
    """

    blocks: tuple[BlockPrice, ...]
    whole: float
    total: Seconds
    batch: int
    threads: int
    engine: str
    trained: bool
    pairs: int = 0
    placements: int = 0
    """Races of two engines, and how often each loaded them afresh."""
    shared: Seconds | None = None
    bytes_of: BytesOf | None = None
    """Whose bytes: the compiled engine's layers', or the file's nodes' before fusion; None of an earlier version."""

    @property
    def summed(self) -> Seconds:
        """The sum of the prices and of what blocks share."""
        return self.of({block.key for block in self.blocks})

    def of(self, keys: Collection[str]) -> Seconds:
        """The sum of the prices of these blocks, and of what blocks share where no block is left out.

        Blocks weighed together share their error; other prices have errors of their own.
        """
        chosen = [block for block in self.blocks if block.key in keys]
        value = sum(block.time.value for block in chosen)
        # Of n blocks that were weighed together, k have k / n of the error of all.
        together = Counter((block.time, "" if block.alike > 1 else block.key) for block in chosen)
        squares = sum((count * time.reach) ** 2 for (time, _), count in together.items())
        if self.shared is not None and len(chosen) == len(self.blocks):
            value, squares = value + self.shared.value, squares + self.shared.reach**2
        return Seconds(value, value - squares**0.5, value + squares**0.5)

    @property
    def gap(self) -> Seconds:
        """The total minus the sum of the prices, with its interval."""
        value = self.total.value - self.summed.value
        reach = (self.total.reach**2 + self.summed.reach**2) ** 0.5
        return Seconds(value, value - reach, value + reach)

    @property
    def agrees(self) -> bool:
        """Whether the sum is the measured total within the error of the two."""
        return not self.gap.told

    @property
    def tax(self) -> float:
        """The cost of the blocks as a share of the time without them."""
        return self.total.value / (self.whole - self.total.value)


@dataclass(frozen=True)
class EnginePrices:
    """The prices of an engine of a run."""

    of: Of
    prices: Prices


PRICES = Kind("prices", EnginePrices, "sesurgery bench --per-block")


def dear_first(blocks: Sequence[BlockPrice]) -> list[BlockPrice]:
    """The most expensive first; with equal prices the earlier one."""
    return sorted(blocks, key=lambda block: -block.time.value)
