"""The section `latency:` of a spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sesurgery.spec.bounds import Repeats, Size, Threads
from sesurgery.spec.frozen import Frozen


class Latency(Frozen):
    """How engines are timed: in alternating rounds, loaded afresh several times in random order."""

    batch: Size = 1
    rounds: Annotated[int, Field(ge=10, le=1_000_000)] = Field(
        60, description="alternating rounds of a process, shared out among the placements"
    )
    repeats: Repeats = Field(10, description="runs an engine in one round")
    placements: Annotated[int, Field(ge=4, le=10_000)] = Field(
        12,
        description="how often a process loads the engines afresh, in random order and its reverse",
    )
    half_width: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        0.015,
        description="a race of one process takes up to four times the placements until its intervals reach no farther "
        "than this share to either side; null: exactly the placements",
    )
    more_seconds: Annotated[float, Field(ge=0, le=86_400)] = Field(
        30.0, description="seconds for the placements on top"
    )
    processes: Annotated[int, Field(gt=0, le=1000)] = Field(
        1, description="fresh processes that repeat all of it; the interval is over them"
    )
    warmup_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.5
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    threads: Threads | None = Field(None, description="CPU threads; default: all")
