"""What is asked of `bench`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sesurgery.talk import Silent, Talk
from sesurgery.workspace.folders import Workspace


@dataclass(frozen=True)
class BenchRequest:
    """An engine to time, by default against the plain network's of the same backend and precision."""

    engine: Path
    """Of an ONNX file, the engine that is built of it."""
    workspace: Workspace
    against: Path | None = None
    """Another rival, an engine or an ONNX file, which is built in the same way. Of a run, the engine as exported does
    not run beside them then."""
    talk: Talk = field(default_factory=Silent)
    foreign: bool = False
    """Whether engines of another version or device are taken."""
    batches: tuple[int, ...] = ()
    """Left out: the batch of the run's spec, and without a run the one that the engine is tuned for."""
    processes: int | None = None
    """Left out: as many as the run's spec says."""
    as_exported: bool = True
    """Whether the engine of the same network without lowering races too."""
    service: bool = False
    """Whether the engines' cold starts, their memory and the throughput of several streams are measured too."""
    threads: tuple[int, ...] = ()
    """Left out: as many CPU threads as the run's spec says, and without a run all."""
    streams: tuple[int, ...] = ()
    """How many streams answer side by side. Left out: one, and one for each core."""
