"""Why a race is doubtful, in one line, with a remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sesurgery.verification.estimates import Stats

BUSY = 0.025
"""Variation above which trtexec calls a measurement unstable."""
DRIFTING = 0.05
ENOUGH_FOR_P99 = 100
FEW_PROCESSES = 4
"""With fewer processes, Student's interval is always wide."""
MORE_PROCESSES = "5 processes (`latency: processes:`, or --processes of bench)"


class Timed(Protocol):
    """The statistics of an engine's times that are checked."""

    @property
    def stats(self) -> Stats: ...

    @property
    def variation(self) -> float: ...

    @property
    def drift(self) -> float: ...


def doubt(timings: Sequence[Timed], processes: int) -> str | None:
    """The doubt of a race, None if there is none. The engines share a machine, so the worst of them counts."""
    causes: list[str] = []
    knobs: list[str] = []
    variation = max(timing.variation for timing in timings)
    drift = max((timing.drift for timing in timings), key=abs)
    count = min(timing.stats.count for timing in timings)
    if variation > BUSY:
        causes.append(f"the machine was busy (variation {_percent(variation)})")
        knobs.append("close other programs")
    if abs(drift) > DRIFTING:
        causes.append(f"its pace changed (the second half ran {_percent(abs(drift))} {_pace(drift)})")
        knobs.append("wait until it is steady")
    if causes and processes < FEW_PROCESSES:
        knobs.append(f"repeat it in {MORE_PROCESSES}")
    if 1 < processes < FEW_PROCESSES:
        causes.append(f"{processes} processes make a wide interval")
        knobs.append(f"take {MORE_PROCESSES}")
    if count < ENOUGH_FOR_P99:
        causes.append(f"p99 of {count} runs is close to the maximum")
        knobs.append("raise `latency: rounds:`")
    if not causes:
        return None
    return f"doubtful: {', and '.join(causes)}; {' or '.join(dict.fromkeys(knobs))}"


def _pace(drift: float) -> str:
    return "slower" if drift > 0 else "faster"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"
