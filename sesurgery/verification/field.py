"""A race of any number of engines: the time of each, and of some over another, all in the same placements.

A machine that becomes slower between two races would favour the engines of the first. Here all are loaded at once and
run in alternating rounds (`sesurgery.verification.placements`), so what is compared ran side by side.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sesurgery.backends.base import Array, Progress
from sesurgery.spec.latency import Latency
from sesurgery.verification.doubt import doubt
from sesurgery.verification.estimates import Tax, student
from sesurgery.verification.fresh_process import EngineFile, in_processes
from sesurgery.verification.latency import Wide, tax_of, timing_of
from sesurgery.verification.placements import Placement, time_placements

Pair = tuple[int, int]


@dataclass(frozen=True)
class Seconds:
    """The time of an engine: the mean over placements of the logarithm of its median there, with Student's interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Field:
    """Engines in the order given, the compared pairs, and what is doubtful about the race."""

    times: tuple[Seconds, ...]
    taxes: Mapping[Pair, Tax]
    doubt: str | None


def race_field(
    files: Sequence[EngineFile],
    pairs: Sequence[Pair],
    feeds: Mapping[str, Array],
    asked: Latency,
    progress: Progress | None = None,
) -> Field:
    """Time all engines in turn; a pair is the number of an engine and of the one that it is compared with.

    Raises SE606 if the feeds do not hold `asked.batch` samples, and SE603 if a process that times them dies.
    """
    if asked.processes == 1:
        wide = Wide(pairs, asked, time.perf_counter)
        placements: Sequence[Placement] = time_placements(
            files, feeds, asked, np.random.default_rng(), progress, more=wide
        )
    else:
        placements = in_processes(files, feeds, asked, progress)
    timings = [timing_of(file.name, number, placements, asked.batch) for number, file in enumerate(files)]
    return Field(
        tuple(_seconds(number, placements, asked.confidence) for number in range(len(files))),
        {pair: tax_of(*pair, placements, asked) for pair in pairs},
        doubt(timings, len({placement.process for placement in placements})),
    )


def _seconds(number: int, placements: Sequence[Placement], confidence: float) -> Seconds:
    logs = np.array([np.log(np.median(placement.kept[number])) for placement in placements])
    processes = np.array([placement.process for placement in placements])
    if len(set(processes)) > 1:
        # Placements of one process are alike in what differs between processes.
        logs = np.array([logs[processes == each].mean() for each in np.unique(processes)])
    reach = student(confidence, len(logs) - 1) * logs.std(ddof=1) / len(logs) ** 0.5
    return Seconds(*(float(np.exp(logs.mean() + step)) for step in (0.0, -reach, reach)))
