"""What an engine costs in time: it and the plain network's engine race in alternating rounds on one machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sesurgery.backends.base import Array, Progress, Runner
from sesurgery.diagnostics import fail
from sesurgery.spec.model import Latency
from sesurgery.verification.estimates import Floats, Stats, Tax, estimate_tax, summarise

UNSTABLE = 0.025
"""Coefficient of variation above which trtexec calls a measurement unstable."""
DRIFTING = 0.05
ENOUGH_FOR_P99 = 100
SEED = 20170905


@dataclass(frozen=True)
class EngineTiming:
    """One engine's times in seconds: kept runs by round, and each round's first run, which is not counted."""

    name: str
    stats: Stats
    round_seconds: tuple[tuple[float, ...], ...]
    first_run_seconds: tuple[float, ...]

    @property
    def samples(self) -> Floats:
        """Every kept run in the order measured, seconds."""
        return np.asarray(self.round_seconds).ravel()

    @property
    def round_medians(self) -> Floats:
        """The median of each round, seconds."""
        medians: Floats = np.median(np.asarray(self.round_seconds), axis=1)
        return medians

    @property
    def drift(self) -> float:
        """How much slower the second half of the rounds was than the first, as a share."""
        half = len(self.round_seconds) // 2
        medians = self.round_medians
        return float(np.median(medians[half:]) / np.median(medians[:half]) - 1)


@dataclass(frozen=True)
class LatencyReport:
    """A race between an engine and a baseline, or an engine alone; `warnings` say what makes the numbers doubtful."""

    batch: int
    rounds: int
    repeats: int
    warmup_seconds: float
    wall_seconds: float
    candidate: EngineTiming
    baseline: EngineTiming | None
    tax: Tax | None
    warnings: tuple[str, ...]

    @property
    def engines(self) -> tuple[EngineTiming, ...]:
        return (self.candidate,) if self.baseline is None else (self.candidate, self.baseline)


def race(
    candidate: Runner,
    baseline: Runner | None,
    feeds: Mapping[str, Array],
    plan: Latency,
    progress: Progress | None = None,
    *,
    names: tuple[str, str] = ("with blocks", "without"),
    generator: np.random.Generator | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> LatencyReport:
    """Time an engine against a baseline on the same feeds; without a baseline there is no tax.

    `names` are the candidate's and the baseline's in the report. `generator` draws the bootstrap; left out, a fixed
    seed gives the same interval for the same samples. Raises SE606 where the feeds do not hold `plan.batch` samples.
    """
    for name, feed in feeds.items():
        if feed.ndim < 1 or len(feed) != plan.batch:
            raise fail("SE606", f"feed {name!r} has shape {list(feed.shape)}; a batch of {plan.batch} is to be timed")
    tell = progress or (lambda what, done, total: None)
    runners = (candidate,) if baseline is None else (candidate, baseline)
    begin = clock()
    for done, runner in enumerate(runners):
        tell("warming up", done, len(runners))
        _warm_up(runner, feeds, plan.warmup_seconds, clock)
    kept = np.empty((len(runners), plan.rounds, plan.repeats))
    first = np.empty((len(runners), plan.rounds))
    for number in range(plan.rounds):
        tell("timing rounds", number, plan.rounds)
        for turn in _order(len(runners), number):
            seconds = _measure(runners[turn], feeds, plan.repeats + 1)
            # The other engine has just filled the caches, and its worker threads may still be spinning.
            first[turn, number], kept[turn, number] = seconds[0], seconds[1:]
    tell("timing rounds", plan.rounds, plan.rounds)
    wall = clock() - begin
    timings = tuple(_timing(*parts, plan.batch) for parts in zip(names, kept, first, strict=False))
    tax = None
    if baseline is not None:
        tax = estimate_tax(kept[0], kept[1], plan.confidence, generator or np.random.default_rng(SEED))
    return LatencyReport(
        batch=plan.batch,
        rounds=plan.rounds,
        repeats=plan.repeats,
        warmup_seconds=plan.warmup_seconds,
        wall_seconds=wall,
        candidate=timings[0],
        baseline=timings[1] if baseline is not None else None,
        tax=tax,
        warnings=tuple(_doubts(timings, tax)),
    )


def _order(engines: int, number: int) -> range:
    # A B, B A, A B, ...: a machine that warms up or slows down favours neither engine.
    return range(engines) if number % 2 == 0 else range(engines - 1, -1, -1)


def _warm_up(runner: Runner, feeds: Mapping[str, Array], seconds: float, clock: Callable[[], float]) -> None:
    """At least one run, whatever was asked: an engine's first run allocates its memory."""
    begin = clock()
    _measure(runner, feeds, 1)
    while clock() - begin < seconds:
        _measure(runner, feeds, 1)


def _measure(runner: Runner, feeds: Mapping[str, Array], runs: int) -> Floats:
    seconds = np.asarray(runner.time(feeds, runs), dtype=np.float64)
    if seconds.shape != (runs,) or not np.isfinite(seconds).all() or seconds.min() <= 0:
        raise RuntimeError(f"{type(runner).__name__}.time must give {runs} positive times, gave {seconds!r}")
    return seconds


def _timing(name: str, kept: Floats, first: Floats, batch: int) -> EngineTiming:
    rounds = tuple(tuple(row) for row in kept.tolist())
    return EngineTiming(name, summarise(kept.ravel(), batch), rounds, tuple(first.tolist()))


def _doubts(timings: tuple[EngineTiming, ...], tax: Tax | None) -> Iterator[str]:
    for timing in timings:
        spread, drift = timing.stats.coefficient_of_variation, timing.drift
        if spread > UNSTABLE:
            yield (
                f"{timing.name}: unstable, the coefficient of variation is {_percent(spread)} "
                f"(above {_percent(UNSTABLE)}); close other programs or fix the clock frequency"
            )
        if abs(drift) > DRIFTING:
            word = "slower" if drift > 0 else "faster"
            yield f"{timing.name}: the machine drifted, the second half was {_percent(abs(drift))} {word}"
        if timing.stats.count < ENOUGH_FOR_P99:
            yield f"{timing.name}: p99 of {timing.stats.count} samples is close to the maximum; take more rounds"
    if tax is not None and tax.includes_zero:
        yield (
            "the SE tax cannot be told apart from no cost: its interval, "
            f"{_percent(tax.low, '+')} to {_percent(tax.high, '+')}, includes zero"
        )


def _percent(share: float, sign: str = "") -> str:
    return f"{100 * share:{sign}.1f} %"
