"""`make fuzz`: cases of every target until the time is over; counts, seeds, and every case that was bad.

`python -m tests.fuzz.fuzz --minutes 30 --seed 1`; one case again: `--target onnx-odd --seed 1 --first 17 --last 18`.
The next case is always of the target that is furthest behind its goal, so that all get equally near to theirs.
"""

import argparse
import collections
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.workers import ROOT, Worker

GOALS = {
    "spec-grammar": 3000, "spec-bytes": 3000, "onnx-odd": 2000, "onnx-structure": 11000, "onnx-bits": 9000,
    "image": 2000, "checkpoint": 400, "manifest": 700, "measurement": 400, "interface": 300, "metrics": 150,
    "run-folder": 400, "file-gates": 1000, "file-against": 500,
}  # fmt: skip
"""Cases of half an hour on two cores."""
EVERY = 2000
"""Cases after which a line says how many there were."""
WORKSPACE = ("image", "checkpoint", "manifest", "measurement", "interface", "metrics", "run-folder")
"""Targets that need a finished workspace."""


@dataclass
class Tally:
    """The cases to try and their results; used by several threads."""

    targets: list[str]
    seed: int
    first: int
    last: Mapping[str, int]
    begun: collections.Counter = field(default_factory=collections.Counter)
    counts: dict[str, collections.Counter] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> tuple[str, int] | None:
        """The next case; None where none is left."""
        with self.lock:
            left = [target for target in self.targets if self.first + self.begun[target] < self.last[target]]
            if not left:
                return None
            target = min(left, key=lambda name: self.begun[name] / GOALS[name])
            self.begun[target] += 1
            return target, self.first + self.begun[target] - 1

    def table(self) -> str:
        """The counts of each target, a line each."""
        lines = []
        for target in self.targets:
            counts = self.counts.get(target, collections.Counter())
            words = ", ".join(f"{counts[kind]} {kind}" for kind in ("done", "refused", "bad"))
            lines.append(f"{target:15} {counts.total():6} cases: {words}")
        return "\n".join(lines)

    def take(self, target: str, number: int, answer: dict[str, str]) -> None:
        """Count a case's result, and print it if it is bad."""
        with self.lock:
            self.counts.setdefault(target, collections.Counter())[answer["kind"]] += 1
            if answer["kind"] == "bad":
                case = f"--target {target} --seed {self.seed} --first {number} --last {number + 1}"
                self.bad.append(f"{case}: {answer['why']}")
                print(f"  bad: {self.bad[-1]}", flush=True)
            tried = sum(counts.total() for counts in self.counts.values())
            if tried % EVERY == 0:
                print(f"{tried} cases, {len(self.bad)} bad", flush=True)


def run(
    targets: list[str],
    seed: int,
    folder: Path,
    *,
    seconds: float,
    first: int = 0,
    last: int | Mapping[str, int] = 10**9,
    processes: int = 1,
    prepared: Mapping[str, Path] | None = None,
) -> Tally:
    """Try cases of targets in some processes, until `last` (of each) or for some seconds after the processes started.

    `prepared` are folders that need not be made: the finished workspace ("made"), exported networks ("networks").
    """
    tally = Tally(targets, seed, first, {name: last if isinstance(last, int) else last[name] for name in targets})
    environment = _environment(targets, folder, prepared or {})
    failed: list[BaseException] = []

    def work(worker: Worker) -> None:
        try:
            worker.start()
            until = time.monotonic() + seconds
            while time.monotonic() < until and not failed and (case := tally.next()) is not None:
                tally.take(*case, worker.tried(case[0], seed, case[1]))
        except BaseException as error:
            failed.append(error)

    workers = [Worker(folder / f"worker-{index}", environment) for index in range(processes)]
    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for worker in workers:
            worker.end()
    if failed:
        raise failed[0]
    return tally


def _environment(targets: list[str], folder: Path, prepared: Mapping[str, Path]) -> dict[str, str]:
    """The environment of workers, with the folders that artefacts and networks are taken from."""
    made = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "SESURGERY_FUZZ_WORKSPACE": str(prepared.get("made", folder / "made")),
        "SESURGERY_FUZZ_NETWORKS": str(prepared.get("networks", folder / "networks")),
    }
    modules = []
    if set(targets) & set(WORKSPACE):
        modules.append(("artefacts", "made"))
    if any(target.startswith(("onnx", "file-")) for target in targets):
        modules.append(("networks", "networks"))
    for module, name in modules:
        if name in prepared:
            continue
        code = (
            f"import sys, pathlib; from tests.fuzz.targets.{module} import prepare; prepare(pathlib.Path(sys.argv[1]))"
        )
        subprocess.run([sys.executable, "-c", code, str(folder / name)], cwd=ROOT, env=made, check=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--target", choices=GOALS, action="append")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, default=10**9)
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="sesurgery-fuzz-") as name:
        tally = run(
            asked.target or list(GOALS), asked.seed, Path(name), seconds=asked.minutes * 60,
            first=asked.first, last=asked.last, processes=asked.processes,
        )  # fmt: skip
    print(tally.table())
    print(f"{len(tally.bad)} bad")
    sys.exit(bool(tally.bad))


if __name__ == "__main__":
    main()
