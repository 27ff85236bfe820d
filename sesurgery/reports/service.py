"""What an engine takes as a service, as text, rows and JSON; names are trtexec's."""

from __future__ import annotations

from sesurgery.reports.wording import count, file_size, milliseconds, plural
from sesurgery.verification.estimates import Stats
from sesurgery.verification.service import Service

HEADER = ("streams", "threads each", "throughput, qps", "median, ms", "p90, ms", "p95, ms", "p99, ms")
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


def table(found: Service) -> list[list[str]]:
    """A row of `HEADER` for each number of streams."""
    return [
        [
            str(each.streams),
            str(each.threads),
            count(each.qps) if each.qps >= 10 else f"{each.qps:.2f}",
            *(
                milliseconds(getattr(each.stats, f"{name}_seconds"), each.stats.median_seconds)
                for name in ("median", "p90", "p95", "p99")
            ),
        ]
        for each in found.streams
    ]


def findings(found: Service) -> list[str]:
    """The cold start, the memory, and what more streams bring; one line each."""
    lines = [
        f"cold start in a fresh process: import {milliseconds(found.import_seconds)} ms, load "
        f"{milliseconds(found.load_seconds)} ms, first inference {milliseconds(found.first_inference_seconds)} ms",
        f"memory: {file_size(found.memory)} for the engine and its first inference, {file_size(found.peak)} in all",
    ]
    if len(found.streams) > 1:
        one, best = found.streams[0], max(found.streams, key=lambda each: each.qps)
        lines.append(
            f"throughput: {best.qps / one.qps:.2f} times that of one stream, with {plural(best.streams, 'stream')}"
            if best is not one
            else "throughput: one stream with all threads gets most done"
        )
    return lines


def to_json(found: Service) -> dict[str, object]:
    """Milliseconds, bytes and queries a second; an engine on the CPU has no `enqueue`: it answers at once."""
    return {
        "cold_start_ms": {
            "import": 1e3 * found.import_seconds,
            "load": 1e3 * found.load_seconds,
            "first_inference": 1e3 * found.first_inference_seconds,
        },
        "memory_bytes": {"engine": found.memory, "peak": found.peak},
        "streams": [
            {
                "streams": each.streams,
                "threads": each.threads,
                "throughput_qps": each.qps,
                "latency_ms": latency_ms(each.stats),
                "enqueue_ms": None,
            }
            for each in found.streams
        ],
    }


def latency_ms(stats: Stats) -> dict[str, float]:
    """A latency by trtexec's names."""
    return {name: 1e3 * getattr(stats, field) for name, field in TRTEXEC.items()}
