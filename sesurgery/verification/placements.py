"""Timing engines in one process in several placements: reloaded in another order, with other buffers.

The addresses of an engine's weights, scratch memory and input change its time by up to a few per cent, and they depend
on the load order (`docs/decisions/0013-latency-over-placements.md`). To treat all engines equally, the orders are
random, and every second one is the reverse of the one before: of any two engines, each is loaded first equally often.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sesurgery.backends.base import Array, Progress, Runner, TensorInfo
from sesurgery.diagnostics import fail
from sesurgery.spec.latency import Latency
from sesurgery.verification.estimates import Floats

Clock = Callable[[], float]
CACHE_LINE = 64
PAGE = 4096
MOST_BETWEEN = 1 << 21
"""Largest number of bytes allocated between two engines."""


class Contender(Protocol):
    """An engine that can be loaded repeatedly."""

    @property
    def name(self) -> str: ...

    def load(self) -> Runner: ...


@dataclass(frozen=True)
class Placement:
    """One loading of all engines: seconds by [engine, round, repeat], and each turn's first run by [engine, round].

    `load_order` has the engines' numbers in the order in which they were loaded.
    """

    load_order: tuple[int, ...]
    kept: Floats
    first: Floats
    process: int = 0


More = Callable[[Sequence[Placement]], bool]
"""Whether more placements are needed, given those so far."""


def time_placements(
    contenders: Sequence[Contender],
    feeds: Mapping[str, Array],
    asked: Latency,
    generator: np.random.Generator,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
    more: More | None = None,
) -> tuple[Placement, ...]:
    """`asked.placements` placements of the engines, which share `asked.rounds` rounds in alternating order.

    Then two more at a time, an order and its reverse, for as long as `more` of those there are asks for them.
    Raises SE606 if the feeds do not hold `asked.batch` samples.
    """
    for name, feed in feeds.items():
        if feed.ndim < 1 or len(feed) != asked.batch:
            raise fail("SE606", f"feed {name!r} has shape {list(feed.shape)}; a batch of {asked.batch} is to be timed")
    found: list[Placement] = []
    for number, order in enumerate(load_orders(len(contenders), asked.placements, generator)):
        if progress:
            progress("timing engines, loaded afresh each time", number, asked.placements)
        found.append(place(contenders, order, feeds, asked, generator, clock, number == 0))
    if progress:
        progress("timing engines, loaded afresh each time", asked.placements, asked.placements)
    while more and more(found):
        for order in load_orders(len(contenders), 2, generator):
            found.append(place(contenders, order, feeds, asked, generator, clock, cold=False))
        if progress:
            progress("timing engines until the interval is narrow", len(found), 0)
    return tuple(found)


def load_orders(engines: int, placements: int, generator: np.random.Generator) -> list[tuple[int, ...]]:
    """Random orders, each followed by its reverse."""
    orders: list[tuple[int, ...]] = []
    while len(orders) < placements:
        order = tuple(generator.permutation(engines).tolist())
        orders += [order, order[::-1]]
    return orders[:placements]


def rounds_each(asked: Latency) -> int:
    """Rounds in one placement."""
    return -(-asked.rounds // asked.placements)


def place(
    contenders: Sequence[Contender],
    order: tuple[int, ...],
    feeds: Mapping[str, Array],
    asked: Latency,
    generator: np.random.Generator,
    clock: Clock,
    cold: bool,
) -> Placement:
    rounds = rounds_each(asked)
    kept, first = np.empty((len(order), rounds, asked.repeats)), np.empty((len(order), rounds))
    with ExitStack() as stack:
        between: list[Array] = []
        runners: dict[int, Runner] = {}
        given: dict[int, dict[str, Array]] = {}
        for engine in order:
            between.append(np.ones(int(generator.integers(1, MOST_BETWEEN)), np.uint8))
            runners[engine] = stack.enter_context(contenders[engine].load())
            given[engine] = {name: _elsewhere(feed, generator) for name, feed in named(runners[engine], feeds).items()}
        # The machine has to get up to its pace once; an engine has to touch its memory each time that it is loaded.
        warm = asked.warmup_seconds if cold else asked.warmup_seconds / asked.placements
        turns = generator.permutation(len(order)).tolist()
        for engine in turns:
            _warm_up(runners[engine], given[engine], warm, clock)
        for number in range(rounds):
            # A B, B A, A B, ...: a machine that becomes faster or slower favours no engine.
            for engine in turns if number % 2 == 0 else turns[::-1]:
                seconds = measure(runners[engine], given[engine], asked.repeats + 1)
                # The first run is separate: the other engine has filled the caches, and its threads may still spin.
                first[engine, number], kept[engine, number] = seconds[0], seconds[1:]
    return Placement(order, kept, first)


def named(runner: Runner, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The feeds with the names and types of this engine's inputs, which may differ between engines."""
    infos: tuple[TensorInfo, ...] = getattr(runner, "inputs", ())
    if len(infos) != 1 or len(feeds) != 1:
        return dict(feeds)
    return {infos[0].name: next(iter(feeds.values())).astype(infos[0].dtype, copy=False)}


def _elsewhere(feed: Array, generator: np.random.Generator) -> Array:
    """A copy at a random cache line of a separate page."""
    block = np.empty(feed.nbytes + 2 * PAGE, np.uint8)
    start = -block.ctypes.data % CACHE_LINE + CACHE_LINE * int(generator.integers(PAGE // CACHE_LINE))
    copy = block[start : start + feed.nbytes].view(feed.dtype).reshape(feed.shape)
    copy[...] = feed
    return copy


def _warm_up(runner: Runner, feeds: Mapping[str, Array], seconds: float, clock: Clock) -> None:
    """Warm up with at least one run, because an engine's first run allocates its memory."""
    begin = clock()
    measure(runner, feeds, 1)
    while clock() - begin < seconds:
        measure(runner, feeds, 1)


def measure(runner: Runner, feeds: Mapping[str, Array], runs: int) -> Floats:
    """The seconds of this many runs."""
    seconds = np.asarray(runner.time(feeds, runs), dtype=np.float64)
    if seconds.shape != (runs,) or not np.isfinite(seconds).all() or seconds.min() <= 0:
        raise RuntimeError(f"{type(runner).__name__}.time must give {runs} positive times, gave {seconds!r}")
    return seconds
