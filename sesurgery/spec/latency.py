"""The section `latency:` of a spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sesurgery.spec.bounds import Repeats, Size, Threads
from sesurgery.spec.frozen import Frozen


class Latency(Frozen):
    """How engines are timed: in alternating rounds, reloaded several times in random order."""

    batch: Size = 1
    rounds: Annotated[int, Field(ge=10, le=1_000_000)] = Field(
        60, description="alternating rounds per process, divided among the placements"
    )
    repeats: Repeats = Field(10, description="runs of each engine per round")
    placements: Annotated[int, Field(ge=4, le=10_000)] = Field(
        12,
        description="how often a process reloads the engines, in random order and its reverse",
    )
    half_width: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        0.015,
        description="with one process: add placements, up to four times as many, until each interval is within this "
        "share of its centre; null: exactly `placements`",
    )
    more_seconds: Annotated[float, Field(ge=0, le=86_400)] = Field(
        30.0, description="time limit for the added placements, in seconds"
    )
    processes: Annotated[int, Field(gt=0, le=1000)] = Field(
        1, description="repeat everything in this many new processes; the interval is then over the processes"
    )
    warmup_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.5
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    threads: Threads | None = Field(None, description="CPU threads; default: all")
