"""A race in new processes, one after the other: `python -m sesurgery.verification.fresh_process JOB`.

Each process has its own memory layout and thread placement, which reloading engines within it does not change. A job is
a folder with `job.json` and `feeds.npz`; the process writes `placements.npz` there, or `diagnostics.json`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sesurgery.backends import BACKENDS
from sesurgery.backends.base import Array, Backend, Progress, Runner
from sesurgery.diagnostics import Diagnostic, SesurgeryError, fail
from sesurgery.spec.latency import Latency
from sesurgery.spec.plugins import ref_from_dict
from sesurgery.verification import latency
from sesurgery.verification.latency import LatencyReport
from sesurgery.verification.placements import Placement, time_placements
from sesurgery.workspace import EngineManifest

JOB, FEEDS, PLACEMENTS, DIAGNOSTICS = "job.json", "feeds.npz", "placements.npz", "diagnostics.json"
LAST_WORDS = 2000
"""Number of last characters of stderr shown if the process died."""


@dataclass(frozen=True)
class EngineFile:
    """An engine on disk that any process can load. `backend` is its name and options, as in a spec."""

    name: str
    engine: str
    backend: Mapping[str, object]
    threads: int

    @property
    def options(self) -> Backend:
        """The backend itself."""
        backend: Backend = ref_from_dict(self.backend, "backend", BACKENDS).options
        return backend

    def load(self) -> Runner:
        return self.options.load(Path(self.engine), self.threads)


def engine_file(name: str, path: Path, manifest: EngineManifest, threads: int) -> EngineFile:
    """An engine as a participant of a race, under a name for the report."""
    return EngineFile(name, path.as_posix(), manifest.details.engine.backend.model_dump(mode="json"), threads)


def race(
    files: Sequence[EngineFile], feeds: Mapping[str, Array], asked: Latency, progress: Progress | None = None
) -> LatencyReport:
    """As `latency.race`, in `asked.processes` fresh processes where that is more than one, and in this one else.

    Raises SE603 if a process dies, and what it raised where it raised.
    """
    if asked.processes == 1:
        return latency.race(files, feeds, asked, progress)
    begin = time.perf_counter()
    placements = in_processes(files, feeds, asked, progress)
    return latency.conclude([file.name for file in files], placements, asked, time.perf_counter() - begin)


def in_processes(
    files: Sequence[EngineFile], feeds: Mapping[str, Array], asked: Latency, progress: Progress | None = None
) -> list[Placement]:
    """The placements of a race of any number of engines in `asked.processes` fresh processes; raises as `race` does."""
    placements: list[Placement] = []
    for number in range(asked.processes):
        if progress:
            progress("timing engines in fresh processes", number, asked.processes)
        placements += _in_a_process(files, feeds, asked, number)
    if progress:
        progress("timing engines in fresh processes", asked.processes, asked.processes)
    return placements


def _in_a_process(
    files: Sequence[EngineFile], feeds: Mapping[str, Array], asked: Latency, number: int
) -> list[Placement]:
    with tempfile.TemporaryDirectory() as folder:
        job = {"files": [asdict(file) for file in files], "asked": asked.model_dump(mode="json")}
        (Path(folder) / JOB).write_text(json.dumps(job), encoding="utf-8")
        np.savez(Path(folder) / FEEDS, **dict(feeds))  # type: ignore[arg-type]
        words = [sys.executable, "-m", __name__, folder]
        ended = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        if (Path(folder) / DIAGNOSTICS).is_file():
            raise SesurgeryError([Diagnostic(**told) for told in json.loads((Path(folder) / DIAGNOSTICS).read_text())])
        if ended.returncode or not (Path(folder) / PLACEMENTS).is_file():
            text = f"the process that times the engines ended with {ended.returncode}"
            raise fail("SE603", text, ended.stderr.strip()[-LAST_WORDS:] or "it printed nothing; try --processes 1")
        with np.load(Path(folder) / PLACEMENTS, allow_pickle=False) as found:
            parts = zip(found["orders"].tolist(), found["kept"], found["first"], strict=True)
            return [Placement(tuple(order), kept, first, number) for order, kept, first in parts]


def main(folder: Path) -> None:
    """Run the job in a folder."""
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    with np.load(folder / FEEDS, allow_pickle=False) as stored:
        feeds = dict(stored)
    asked = Latency.model_validate_json(json.dumps(job["asked"]))
    try:
        found = time_placements([EngineFile(**file) for file in job["files"]], feeds, asked, np.random.default_rng())
    except SesurgeryError as error:
        told = [{"code": each.code, "message": each.message, "hint": each.hint} for each in error.diagnostics]
        (folder / DIAGNOSTICS).write_text(json.dumps(told), encoding="utf-8")
        return
    np.savez(
        folder / PLACEMENTS,
        orders=np.array([each.load_order for each in found]),
        kept=np.array([each.kept for each in found]),
        first=np.array([each.first for each in found]),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
