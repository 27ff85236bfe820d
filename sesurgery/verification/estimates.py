"""Statistics of latency samples: one engine's run times, and the SE tax with its confidence interval.

An engine that is reloaded has another memory layout, and the layout depends on which engine is loaded first. Both
effects are up to a few per cent, and constant over all rounds until the engine is reloaded. Therefore the sampling unit
is the *placement* (one loading of the engines), not the round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FEWEST_PLACEMENTS = 4
"""In one process, one degree of freedom is used for the cost and one for the load order."""


@dataclass(frozen=True)
class PairedTimes:
    """Two engines in one placement: the seconds of each by [rounds, repeats], and which was loaded first."""

    ours: Floats
    theirs: Floats
    ours_first: bool
    process: int = 0

    @property
    def per_round(self) -> Floats:
        """The logarithm of each round's ratio of medians: within a round both engines run under the same conditions."""
        logs: Floats = np.log(np.median(self.ours, axis=1) / np.median(self.theirs, axis=1))
        return logs


@dataclass(frozen=True)
class Stats:
    """Statistics of an engine's runs; one run is one whole batch."""

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
    """The additional time of one engine as a share of another's (0.1 = 10 % more), with its confidence interval.

    `per_placement` has the share of each placement in the order measured, `per_round` that of each round. `load_order`
    is the share by which an engine is slower if it is loaded before the other; `value` and the interval are corrected
    for it. `processes` is the number of processes.
    """

    value: float
    low: float
    high: float
    confidence: float
    per_round: tuple[float, ...]
    per_placement: tuple[float, ...]
    load_order: float = 0.0
    processes: int = 1

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


def estimate_tax(placements: Sequence[PairedTimes], confidence: float) -> Tax:
    """The cost of an engine over another one, from placements in which each was loaded first about equally often.

    A placement gives one number, the median over its rounds, modelled as cost + load order + noise, with Student's
    interval. With several processes, each gives one number, its cost, and Student's interval is over the processes: it
    covers differences between processes and within them.
    """
    rounds = [placement.per_round for placement in placements]
    logs = np.array([np.median(each) for each in rounds])
    signs = np.array([1.0 if placement.ours_first else -1.0 for placement in placements])
    numbers = np.array([placement.process for placement in placements])
    each = [_cost(logs[numbers == number], signs[numbers == number]) for number in np.unique(numbers)]
    costs, orders = np.array([cost for cost, _, _, _ in each]), np.array([order for _, order, _, _ in each])
    if len(each) == 1:
        cost, _, error, freedom = each[0]
    else:
        cost, error, freedom = float(costs.mean()), float(costs.std(ddof=1)) / len(each) ** 0.5, len(each) - 1
    reach = student(confidence, freedom) * error
    value, low, high = (float(np.expm1(number)) for number in (cost, cost - reach, cost + reach))
    return Tax(
        value=value,
        low=low,
        high=high,
        confidence=confidence,
        per_round=tuple(np.expm1(np.concatenate(rounds)).tolist()),
        per_placement=tuple(np.expm1(logs).tolist()),
        load_order=float(np.expm1(orders.mean())),
        processes=len(each),
    )


def _cost(logs: Floats, signs: Floats) -> tuple[float, float, float, int]:
    """In one process: the cost, the effect of being loaded first, the cost's standard error, the degrees of freedom."""
    if len(logs) < FEWEST_PLACEMENTS or len(set(signs)) < 2:
        raise ValueError(f"{len(logs)} placements, {int((signs > 0).sum())} with the first engine loaded first")
    design = np.column_stack((np.ones_like(signs), signs))
    (cost, order), *_ = np.linalg.lstsq(design, logs)
    left = logs - design @ (cost, order)
    freedom = len(logs) - 2
    variance = float(left @ left) / freedom * np.linalg.inv(design.T @ design)[0, 0]
    return float(cost), float(order), float(variance**0.5), freedom


def student(confidence: float, freedom: int) -> float:
    """The half-width of the interval in standard errors."""
    # Importing it takes a tenth of a second, which other verbs do not need.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + confidence) / 2))
