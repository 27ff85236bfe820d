"""What engines take as a service, as text, rows and JSON; names are trtexec's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sesurgery.reports.wording import count, file_size, milliseconds, percent, plural
from sesurgery.verification.estimates import Floats, Stats
from sesurgery.verification.service import CONFIDENCE, EngineService, Mean, Service, Streams

COLD = ("engine", "import, ms", "load, ms", "first inference, ms", "memory", "of the process")
HEADER = ("engine", "streams", "threads each", "throughput, qps", "median, ms", "p90, ms", "p95, ms", "p99, ms")
TRTEXEC = {
    "min": "min_seconds",
    "max": "max_seconds",
    "mean": "mean_seconds",
    "median": "median_seconds",
    "percentile(90%)": "p90_seconds",
    "percentile(95%)": "p95_seconds",
    "percentile(99%)": "p99_seconds",
}
"""What trtexec prints of a latency, by its names; it prints milliseconds, and queries a second for the throughput."""
START: dict[str, Callable[[Service], float]] = {
    "import": lambda found: found.import_seconds,
    "load": lambda found: found.load_seconds,
    "first_inference": lambda found: found.first_inference_seconds,
}
MEMORY: dict[str, Callable[[Service], float]] = {"engine": lambda found: found.memory, "peak": lambda found: found.peak}


def cold(services: Sequence[EngineService]) -> list[list[str]]:
    """A row of `COLD` for each engine."""
    return [
        [
            each.name,
            *(_milliseconds(each.mean(figure)) for figure in START.values()),
            *(_text(each.mean(figure), lambda size: file_size(round(size))) for figure in MEMORY.values()),
        ]
        for each in services
    ]


def table(services: Sequence[EngineService]) -> list[list[str]]:
    """A row of `HEADER` for each number of streams of each engine."""
    return [_row(each, place) for each in services for place in range(len(each.processes[0].streams))]


def _row(each: EngineService, place: int) -> list[str]:
    found = each.processes[0].streams[place]
    median = each.mean(lambda service: service.streams[place].stats.median_seconds)
    return [
        each.name,
        str(found.streams),
        str(found.threads),
        _text(each.mean(_qps(place)), _rate),
        _milliseconds(median),
        *(milliseconds(each.mean(_stat(place, f"p{share}_seconds")).value, median.value) for share in (90, 95, 99)),
    ]


def findings(services: Sequence[EngineService]) -> list[str]:
    """What more streams bring each engine, and of how many processes the figures are; one line each."""
    lines = [line for each in services if (line := _more_streams(each)) is not None]
    processes = len(services[0].processes) if services else 0
    if processes > 1:
        lines.append(f"geometric means of {plural(processes, 'fresh process')}, with {percent(CONFIDENCE)} intervals")
    return lines


def _more_streams(each: EngineService) -> str | None:
    counts = [found.streams for found in each.processes[0].streams]
    if len(counts) < 2:
        return None
    rates = [each.mean(_qps(place)).value for place in range(len(counts))]
    best = max(range(len(counts)), key=rates.__getitem__)
    if best == 0:
        return f"{each.name}: more streams bring no more throughput"
    times = f"{rates[best] / rates[0]:.2f} times that of {plural(counts[0], 'stream')}"
    return f"{each.name}: throughput {times}, with {plural(counts[best], 'stream')}"


def to_json(each: EngineService) -> dict[str, object]:
    """Milliseconds, bytes and queries a second; `enqueue_ms` is null on the CPU, where an engine answers at once.

    Intervals are null where there was one process.
    """
    start = {name: each.mean(figure) for name, figure in START.items()}
    memory = {name: each.mean(figure) for name, figure in MEMORY.items()}
    return {
        "processes": len(each.processes),
        "cold_start_ms": {name: 1e3 * found.value for name, found in start.items()},
        "cold_start_interval_ms": {name: _interval(found, 1e3) for name, found in start.items()},
        "memory_bytes": {name: round(found.value) for name, found in memory.items()},
        "memory_interval_bytes": {name: _interval(found) for name, found in memory.items()},
        "streams": [_streams_json(each, place, found) for place, found in enumerate(each.processes[0].streams)],
    }


def _streams_json(each: EngineService, place: int, found: Streams) -> dict[str, object]:
    rate = each.mean(_qps(place))
    latency = {name: each.mean(_stat(place, field)) for name, field in TRTEXEC.items()}
    return {
        "streams": found.streams,
        "threads": found.threads,
        "throughput_qps": rate.value,
        "throughput_interval_qps": _interval(rate),
        "latency_ms": {name: 1e3 * value.value for name, value in latency.items()},
        "latency_interval_ms": {name: _interval(value, 1e3) for name, value in latency.items()},
        "enqueue_ms": None
        if found.enqueue is None
        else {name: 1e3 * each.mean(_enqueue(place, field)).value for name, field in TRTEXEC.items()},
    }


def latency_ms(stats: Stats) -> dict[str, float]:
    """A latency by trtexec's names."""
    return {name: 1e3 * getattr(stats, field) for name, field in TRTEXEC.items()}


def in_milliseconds(seconds: Floats) -> dict[str, float]:
    """Of the seconds of each run, what trtexec prints of them."""
    shares = np.percentile(seconds, (50, 90, 95, 99))
    found = (seconds.min(), seconds.max(), seconds.mean(), *shares)
    return {name: 1e3 * float(value) for name, value in zip(TRTEXEC, found, strict=True)}


def _qps(place: int) -> Callable[[Service], float]:
    return lambda service: service.streams[place].qps


def _stat(place: int, field: str) -> Callable[[Service], float]:
    return lambda service: float(getattr(service.streams[place].stats, field))


def _enqueue(place: int, field: str) -> Callable[[Service], float]:
    return lambda service: float(getattr(service.streams[place].enqueue, field))


def _interval(found: Mean, scale: float = 1.0) -> list[float] | None:
    return None if found.low is None or found.high is None else [scale * found.low, scale * found.high]


def _milliseconds(found: Mean) -> str:
    return _text(found, lambda seconds: milliseconds(seconds, found.value))


def _rate(qps: float) -> str:
    return count(qps) if qps >= 10 else f"{qps:.2f}"


def _text(found: Mean, words: Callable[[float], str]) -> str:
    if found.low is None or found.high is None:
        return words(found.value)
    return f"{words(found.value)} ({words(found.low)} to {words(found.high)})"
