"""The latency of an engine, in a race with the plain network's engine and the engine of the file as exported.

Engines are reloaded several times in random order, and in each of these placements they run in alternating rounds;
`sesurgery.verification.placements` explains why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sesurgery.backends.base import Array, Progress
from sesurgery.spec.latency import Latency
from sesurgery.verification.doubt import doubt
from sesurgery.verification.estimates import Floats, PairedTimes, Stats, Tax, estimate_tax, summarise
from sesurgery.verification.placements import Clock, Contender, Placement, time_placements

MIDDLE = 2.5631
"""The distance between the 10th and the 90th percentile of a normal distribution, in standard deviations."""
COMPARED = ((0, 1), (2, 1), (0, 2))
"""The compared pairs, as indices into: the engine, the baseline, the engine as exported."""
MOST_TIMES = 4
"""Largest number of placements in a race, as a multiple of `latency: placements:`."""


@dataclass(frozen=True)
class EngineTiming:
    """One engine's times in seconds: the counted runs by round, and each round's first run, which is not counted.

    Rounds are in the order measured; those of one placement are consecutive.
    """

    name: str
    stats: Stats
    round_seconds: tuple[tuple[float, ...], ...]
    first_run_seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        sizes = {len(times) for times in self.round_seconds}
        if len(sizes) != 1 or 0 in sizes:
            raise ValueError(f"every round has the same number of runs, at least one: found {sorted(sizes)}")
        if not all(0 <= seconds < math.inf for times in self.round_seconds for seconds in times):
            raise ValueError("the time of a run is a finite number of seconds, 0 or more")

    @property
    def samples(self) -> Floats:
        """Every counted run in the order measured, in seconds."""
        return np.asarray(self.round_seconds).ravel()

    @property
    def round_medians(self) -> Floats:
        """The median of each round, in seconds."""
        medians: Floats = np.median(np.asarray(self.round_seconds), axis=1)
        return medians

    @property
    def drift(self) -> float:
        """How much slower the second half of the rounds is than the first, as a share."""
        half = len(self.round_seconds) // 2
        medians = self.round_medians
        return float(np.median(medians[half:]) / np.median(medians[:half]) - 1)

    @property
    def variation(self) -> float:
        """The spread of the middle four fifths of the runs as a standard deviation over the median.

        The plain coefficient of variation is often dominated by a single stalled run.
        """
        low, middle, high = np.percentile(self.samples, (10, 50, 90))
        return float((high - low) / MIDDLE / middle)


@dataclass(frozen=True)
class LatencyReport:
    """A race of an engine against a baseline, or an engine alone; `doubt` says what is doubtful, and a remedy.

    `rounds` counts all placements in all processes. `as_exported` is the engine of the same network without lowering,
    `as_exported_tax` its cost over the baseline, and `lowering` the engine's time over it minus one: the share saved by
    lowering is negative.
    """

    batch: int
    rounds: int
    repeats: int
    warmup_seconds: float
    wall_seconds: float
    candidate: EngineTiming
    baseline: EngineTiming | None
    tax: Tax | None
    doubt: str | None = None
    placements: int = 1
    processes: int = 1
    as_exported: EngineTiming | None = None
    as_exported_tax: Tax | None = None
    lowering: Tax | None = None

    @property
    def engines(self) -> tuple[EngineTiming, ...]:
        return tuple(timing for timing in (self.candidate, self.baseline, self.as_exported) if timing is not None)


def race(
    contenders: Sequence[Contender],
    feeds: Mapping[str, Array],
    asked: Latency,
    progress: Progress | None = None,
    *,
    generator: np.random.Generator | None = None,
    clock: Clock = time.perf_counter,
) -> LatencyReport:
    """Time an engine in this process, against the baseline and the engine as exported that come after it, if they do.

    After `asked.placements` it goes on until every interval is as narrow as `asked.half_width` says, until
    `asked.more_seconds` are over, or until there are `MOST_TIMES` as many. `generator` draws the orders of loading and
    where buffers lie. Raises SE606 if the feeds do not hold `asked.batch` samples.
    """
    begin = clock()
    wide = Wide([pair for pair in COMPARED if max(pair) < len(contenders)], asked, clock)
    placements = time_placements(contenders, feeds, asked, generator or np.random.default_rng(), progress, clock, wide)
    return conclude([contender.name for contender in contenders], placements, asked, clock() - begin)


class Wide:
    """Whether the interval of any of these pairs of a race is still too wide and there is time to make it narrower.

    Stopping by the width keeps the coverage, because the width of Student's interval does not depend on its centre.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]], asked: Latency, clock: Clock) -> None:
        self.pairs, self.asked, self.clock = pairs, asked, clock
        self.begin: float | None = None

    def __call__(self, placements: Sequence[Placement]) -> bool:
        if self.begin is None:
            self.begin = self.clock()
        half_width = self.asked.half_width
        if half_width is None or len(placements) + 2 > MOST_TIMES * self.asked.placements:
            return False
        if self.clock() - self.begin >= self.asked.more_seconds:
            return False
        taxes = (tax_of(ours, theirs, placements, self.asked) for ours, theirs in self.pairs)
        return any(tax.high - tax.low > 2 * half_width for tax in taxes)


def conclude(names: Sequence[str], placements: Sequence[Placement], asked: Latency, wall: float) -> LatencyReport:
    """The report of placements of an engine, of a baseline if there is one, and of the engine as exported if so."""
    timings = [timing_of(name, number, placements, asked.batch) for number, name in enumerate(names)]
    baseline, as_exported = (timings[at] if len(timings) > at else None for at in (1, 2))
    tax = tax_of(0, 1, placements, asked) if baseline else None
    processes = len({placement.process for placement in placements})
    return LatencyReport(
        batch=asked.batch,
        rounds=len(timings[0].round_seconds),
        repeats=asked.repeats,
        warmup_seconds=asked.warmup_seconds,
        wall_seconds=wall,
        candidate=timings[0],
        baseline=baseline,
        tax=tax,
        doubt=doubt(timings, processes),
        placements=len(placements),
        processes=processes,
        as_exported=as_exported,
        as_exported_tax=tax_of(2, 1, placements, asked) if as_exported else None,
        lowering=tax_of(0, 2, placements, asked) if as_exported else None,
    )


def tax_of(ours: int, theirs: int, placements: Sequence[Placement], asked: Latency) -> Tax:
    """The time of one engine of a race over another's minus one; the engines are named by their numbers."""
    pairs = [
        PairedTimes(
            placement.kept[ours],
            placement.kept[theirs],
            placement.load_order.index(ours) < placement.load_order.index(theirs),
            placement.process,
        )
        for placement in placements
    ]
    return estimate_tax(pairs, asked.confidence)


def timing_of(name: str, number: int, placements: Sequence[Placement], batch: int) -> EngineTiming:
    """The times of one engine of a race."""
    kept = np.concatenate([placement.kept[number] for placement in placements])
    first = np.concatenate([placement.first[number] for placement in placements])
    rounds = tuple(tuple(row) for row in kept.tolist())
    return EngineTiming(name, summarise(kept.ravel(), batch), rounds, tuple(first.tolist()))
