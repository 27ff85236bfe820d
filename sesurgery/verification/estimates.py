"""Numbers from latency samples: what one engine's runs look like, and the SE tax with its confidence interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 5000


@dataclass(frozen=True)
class Stats:
    """An engine's kept runs in numbers; one run takes one whole batch."""

    count: int
    min_seconds: float
    mean_seconds: float
    median_seconds: float
    p90_seconds: float
    p95_seconds: float
    p99_seconds: float
    max_seconds: float
    std_seconds: float
    coefficient_of_variation: float
    samples_per_second: float


@dataclass(frozen=True)
class Tax:
    """What the blocks cost as a share of the baseline's time (0.1 = 10 % more), with its confidence interval.

    `value` is the median of `per_round`, each the ratio of one round's two medians minus one.
    """

    value: float
    low: float
    high: float
    confidence: float
    resamples: int
    per_round: tuple[float, ...]

    @property
    def includes_zero(self) -> bool:
        return self.low <= 0 <= self.high


def summarise(samples: Floats, batch: int) -> Stats:
    """Statistics of run times in seconds; percentiles interpolate linearly, the deviation is the sample's (n - 1)."""
    p90, p95, p99 = np.percentile(samples, (90, 95, 99)).tolist()
    mean = float(samples.mean())
    std = float(samples.std(ddof=1)) if len(samples) > 1 else 0.0
    return Stats(
        count=len(samples),
        min_seconds=float(samples.min()),
        mean_seconds=mean,
        median_seconds=float(np.median(samples)),
        p90_seconds=p90,
        p95_seconds=p95,
        p99_seconds=p99,
        max_seconds=float(samples.max()),
        std_seconds=std,
        coefficient_of_variation=std / mean,
        samples_per_second=batch / mean,
    )


def estimate_tax(candidate: Floats, baseline: Floats, confidence: float, generator: np.random.Generator) -> Tax:
    """The SE tax from kept samples [rounds, repeats] of both engines, paired by round.

    The ratio is taken within a round, where both engines met the same machine; a slow minute then moves both medians
    and leaves the ratio alone. Rounds, not runs, are resampled, because the runs of one round are not independent.
    The interval speaks of this process on this machine, not of another one.
    """
    ratios = np.median(candidate, axis=1) / np.median(baseline, axis=1) - 1
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(_resampled_medians(ratios, generator), (tail, 100 - tail)).tolist()
    return Tax(float(np.median(ratios)), low, high, confidence, RESAMPLES, tuple(ratios.tolist()))


def _resampled_medians(values: Floats, generator: np.random.Generator) -> Floats:
    # In pieces of some 30 MB, so that a measurement of very many rounds does not fill the memory.
    piece = max(1, 4_000_000 // len(values))
    sizes = [min(piece, RESAMPLES - start) for start in range(0, RESAMPLES, piece)]
    return np.concatenate(
        [np.median(values[generator.integers(len(values), size=(size, len(values)))], axis=1) for size in sizes]
    )
