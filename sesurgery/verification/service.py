"""What engines take as a service: a cold start, memory, and the throughput of several streams.

All of it is of a process of its own (`python -m sesurgery.verification.service JOB`), since a second loading in one
process finds libraries and files that the first has brought in. A stream is an engine loaded for itself, which runs in
a thread of its own; the processor's cores are shared out among several streams. Several engines take turns, in another
order each time; what is repeated in several processes has an interval.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from sesurgery.backends.base import Array, Progress, Runner, TimesParts
from sesurgery.diagnostics import fail
from sesurgery.verification.estimates import Floats, Stats, student, summarise
from sesurgery.verification.fresh_process import LAST_WORDS, EngineFile
from sesurgery.verification.placements import named

JOB, FEEDS, FOUND = "job.json", "feeds.npz", "found.json"
SECONDS = 1.0
"""For which streams run."""
CHUNK = 5
"""Runs between two looks at the clock."""
CONFIDENCE = 0.95
Runs = list[tuple[Floats, Floats | None]]
"""Seconds of a chunk of runs, and what the host took to start each, of an engine that tells it."""


@dataclass(frozen=True)
class Streams:
    """Engines that answer side by side: how many, the threads of each, and the runs of all; `qps` is runs a second.

    On a GPU a run has its copies in it, as trtexec's latency has, and `enqueue` is what the host took to start it.
    """

    streams: int
    threads: int
    stats: Stats
    qps: float
    enqueue: Stats | None = None


@dataclass(frozen=True)
class Service:
    """A fresh process up to its first answer in seconds, its memory in bytes, and what streams get done.

    `import_seconds` is the runtime's, of which nothing is specific to the engine. `memory` is what loading and the
    first inference added to the resident set, `peak` the largest resident set of the process until then.
    """

    import_seconds: float
    load_seconds: float
    first_inference_seconds: float
    memory: int
    peak: int
    streams: tuple[Streams, ...]


@dataclass(frozen=True)
class Mean:
    """The geometric mean of a figure over fresh processes, with its 95 % interval where there are several."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class EngineService:
    """What one engine of a race takes as a service, in each of the fresh processes."""

    name: str
    processes: tuple[Service, ...]

    def mean(self, figure: Callable[[Service], float]) -> Mean:
        """The geometric mean of a figure of each process, with Student's interval of the logarithms.

        Times, rates and sizes are positive, and so is every interval of theirs.
        """
        found = np.array([figure(each) for each in self.processes], float)
        # Memory is 0 where the system does not tell.
        if len(found) < 2 or found.min() <= 0:
            return Mean(float(found.mean()))
        logs = np.log(found)
        middle = float(logs.mean())
        reach = student(CONFIDENCE, len(logs) - 1) * float(logs.std(ddof=1)) / len(logs) ** 0.5
        return Mean(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach))


def measure_all(
    files: Sequence[EngineFile],
    feeds: Mapping[str, Array],
    streams: Sequence[int],
    processes: int = 1,
    progress: Progress | None = None,
    *,
    seconds: float | None = None,
    generator: np.random.Generator | None = None,
) -> tuple[EngineService, ...]:
    """Measure each engine in so many fresh processes, one at a time; raises as `measure` does."""
    generator = generator or np.random.default_rng()
    found: dict[str, list[Service]] = {file.name: [] for file in files}
    for number in range(processes):
        for step, which in enumerate(generator.permutation(len(files)).tolist()):
            if progress:
                progress("starting engines cold", number * len(files) + step, processes * len(files))
            found[files[which].name].append(measure(files[which], feeds, streams, seconds))
    if progress:
        progress("starting engines cold", processes * len(files), processes * len(files))
    return tuple(EngineService(name, tuple(each)) for name, each in found.items())


def measure(
    file: EngineFile, feeds: Mapping[str, Array], streams: Sequence[int], seconds: float | None = None
) -> Service:
    """Measure an engine in a fresh process, with so many streams for `SECONDS`; raises SE603 where the process dies."""
    with tempfile.TemporaryDirectory() as folder:
        job = {"file": asdict(file), "streams": list(streams), "seconds": SECONDS if seconds is None else seconds}
        (Path(folder) / JOB).write_text(json.dumps(job), encoding="utf-8")
        np.savez(Path(folder) / FEEDS, **dict(feeds))  # type: ignore[arg-type]
        words = [sys.executable, "-m", __name__, folder]
        ended = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        if ended.returncode or not (Path(folder) / FOUND).is_file():
            text = f"the process that was to run the engine ended with {ended.returncode}"
            raise fail("SE603", text, ended.stderr.strip()[-LAST_WORDS:] or "it said nothing; leave --service out")
        return TypeAdapter(Service).validate_json((Path(folder) / FOUND).read_text(encoding="utf-8"))


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def main(folder: Path) -> None:
    """Do the job that lies in a folder."""
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    with np.load(folder / FEEDS, allow_pickle=False) as stored:
        feeds = dict(stored)
    file = EngineFile(**job["file"])
    began = time.perf_counter()
    file.options.probe()
    imported, before = time.perf_counter(), _memory("VmRSS")
    with file.load() as runner:
        loaded = time.perf_counter()
        runner.infer(named(runner, feeds))
        answered = time.perf_counter()
        memory, peak = _memory("VmRSS") - before, _memory("VmHWM")
    found = Service(
        imported - began,
        loaded - imported,
        answered - loaded,
        memory,
        peak,
        tuple(_together(file, feeds, count, job["seconds"]) for count in job["streams"]),
    )
    (folder / FOUND).write_text(json.dumps(asdict(found)), encoding="utf-8")


def _together(file: EngineFile, feeds: Mapping[str, Array], count: int, seconds: float) -> Streams:
    """So many engines side by side, for so long."""
    threads = file.threads if count == 1 else max(1, cores() // count)
    own = EngineFile(file.name, file.engine, file.backend, threads)
    with ExitStack() as stack:
        runners = [stack.enter_context(own.load()) for _ in range(count)]
        taken: list[Runs] = [[] for _ in runners]
        start = threading.Barrier(count + 1)
        workers = [
            threading.Thread(target=_run, args=(runner, named(runner, feeds), seconds, start, into))
            for runner, into in zip(runners, taken, strict=True)
        ]
        for worker in workers:
            worker.start()
        start.wait()
        began = time.perf_counter()
        for worker in workers:
            worker.join()
        elapsed = time.perf_counter() - began
    chunks = [chunk for each in taken for chunk in each]
    runs = np.concatenate([latency for latency, _ in chunks])
    enqueued = [enqueue for _, enqueue in chunks if enqueue is not None]
    batch = len(next(iter(feeds.values())))
    stats, enqueue = summarise(runs, batch), summarise(np.concatenate(enqueued), batch) if enqueued else None
    return Streams(count, threads, stats, len(runs) / elapsed, enqueue)


def _run(runner: Runner, feeds: Mapping[str, Array], seconds: float, start: threading.Barrier, into: Runs) -> None:
    # What is allocated at a first run is no part of the throughput.
    runner.time(feeds, 1)
    start.wait()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if isinstance(runner, TimesParts):
            parts = runner.timings(feeds, CHUNK).parts
            into.append((parts["latency"], parts["enqueue"]))
        else:
            into.append((runner.time(feeds, CHUNK), None))


def _memory(figure: str) -> int:
    """Bytes of this process that are or were in memory; 0 where the system does not tell.

    Not getrusage's largest set: a child's begins with its parent's.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{figure}:")), 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
