"""What each block costs: the engine raced against one without it, and whether the prices add up to the whole tax.

An engine without one block differs from the whole one by that block's time, and by where the two lie in memory. So
each block has a race of its own, with the engines loaded afresh in random order (`sesurgery.verification.placements`),
and the errors of the races are independent: the error of the sum is the root of the sum of their squares. Blocks that
are alike (block, channels, map) may be left out together, which tells the price of one with less error and in fewer
engines.

Blocks do not cost the same beside others: a compiler that changes the layout of maps around one gate changes it for its
neighbours too. Left out of the whole network a block saves one time, put alone into the plain network it costs another.
The mean of the two is its price: where blocks act on one another in pairs, these means add up to the whole (they are
Shapley's values, Contributions to the Theory of Games II, 1953).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sesurgery.verification.latency import LatencyReport
from sesurgery.workspace.measurements import Kind, Of


@dataclass(frozen=True)
class Seconds:
    """A time with the ends of its confidence interval, in seconds a run; `low` may be negative."""

    value: float
    low: float
    high: float

    @property
    def reach(self) -> float:
        """Half the interval."""
        return (self.high - self.low) / 2

    @property
    def told(self) -> bool:
        """Whether it can be told from nothing."""
        return not self.low <= 0 <= self.high

    def mean(self, other: Seconds) -> Seconds:
        """Of two that were measured apart."""
        value = (self.value + other.value) / 2
        reach = (self.reach**2 + other.reach**2) ** 0.5 / 2
        return Seconds(value, value - reach, value + reach)

    def over(self, count: int) -> Seconds:
        """The share of one of several that were measured together."""
        return Seconds(self.value / count, self.low / count, self.high / count)


@dataclass(frozen=True)
class BlockPrice:
    """What one block costs in time, and by the engine's own profile where it has one.

    `time` is the mean of what it saves `left_out` and costs `alone`, or the first where the second was not measured.

    `kernels` are the layers that the compiled engine has more for it and `bytes` what its nodes read and write before
    fusion; None where they are not known. `alike` blocks were left out together.
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
    left_out: Seconds | None = None
    alone: Seconds | None = None


@dataclass(frozen=True)
class Prices:
    """The price list of an engine's blocks. `whole` is the engine's time and `total` what all blocks cost together."""

    blocks: tuple[BlockPrice, ...]
    whole: float
    total: Seconds
    batch: int
    threads: int
    engine: str
    trained: bool

    @property
    def summed(self) -> Seconds:
        """The sum of the prices. Blocks of one race share its error; races have errors of their own."""
        value = sum(block.time.value for block in self.blocks)
        squares = sum((block.alike * block.time.reach) ** 2 / block.alike for block in self.blocks)
        return Seconds(value, value - squares**0.5, value + squares**0.5)

    @property
    def gap(self) -> Seconds:
        """What the prices leave over of the total; the interval says whether that is anything."""
        value = self.total.value - self.summed.value
        reach = (self.total.reach**2 + self.summed.reach**2) ** 0.5
        return Seconds(value, value - reach, value + reach)

    @property
    def agrees(self) -> bool:
        """Whether the sum is the measured total within the error of the two."""
        return not self.gap.told

    @property
    def tax(self) -> float:
        """What the blocks cost as a share of the engine without them."""
        return self.total.value / (self.whole - self.total.value)


@dataclass(frozen=True)
class EnginePrices:
    """The prices of an engine of a run."""

    of: Of
    prices: Prices


PRICES = Kind("prices", EnginePrices, "sesurgery bench --per-block")


def difference(report: LatencyReport) -> Seconds:
    """How many seconds an engine takes more than its rival; raises ValueError for a race without one."""
    if report.tax is None:
        raise ValueError("a race without a rival tells no difference")
    whole = report.candidate.stats.median_seconds
    value, low, high = (whole * share / (1 + share) for share in (report.tax.value, report.tax.low, report.tax.high))
    return Seconds(value, low, high)


def dear_first(blocks: Sequence[BlockPrice]) -> list[BlockPrice]:
    """The dearest first; of equal ones the earlier."""
    return sorted(blocks, key=lambda block: -block.time.value)
