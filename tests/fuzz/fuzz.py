"""`make fuzz`: cases of every target in turn until the time is over; counts, seeds, and every case that was bad.

`python -m tests.fuzz.fuzz --minutes 30 --seed 1`; one case again: `--target onnx-odd --seed 1 --first 17 --last 18`.
"""

import argparse
import collections
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARES = {
    "spec-grammar": 2, "spec-bytes": 2, "onnx-odd": 2, "onnx-structure": 4, "onnx-bits": 3, "image": 1, "checkpoint": 1,
    "manifest": 2, "measurement": 1, "interface": 1, "metrics": 1, "run-folder": 1,
}  # fmt: skip
WORKSPACE = ("checkpoint", "manifest", "measurement", "interface", "metrics", "run-folder")
WALL = 120
"""Seconds without an answer, after which a process hangs unless it computes: others may have the machine."""
BUSY, MOST = 1, 60
"""Processor seconds within that time that show it computes, and those after which native code has hung in one case."""


def _pour(stream, lines: queue.Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def spent(process: int) -> float:
    """Processor seconds of a process; 0 of one that has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_target(
    target: str, seed: int, first: int, last: int, seconds: float, folder: Path, environment: dict[str, str]
) -> tuple[collections.Counter, list[str], int]:
    """Try cases until `last`, or for some seconds from the first one: counts by kind, the bad in words, next number.

    A process that dies or hangs is a bad case; a new one goes on behind it.
    """
    counts: collections.Counter = collections.Counter()
    bad: list[str] = []

    def worse(at: int, why: str) -> None:
        bad.append(f"--target {target} --seed {seed} --first {at} --last {at + 1}: {why}")
        print(f"  bad: {bad[-1]}", flush=True)

    number, until = first, float("inf")
    while number < last and time.monotonic() < until:
        numbers = map(str, (seed, number, last))
        command = [sys.executable, "-m", "tests.fuzz.worker", str(folder / target), target, *numbers]
        errors = (folder / f"{target}.stderr").open("w+")
        worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        lines: queue.Queue = queue.Queue()
        threading.Thread(target=_pour, args=(worker.stdout, lines), daemon=True).start()
        begun, at_begin, looked = None, 0.0, 0.0
        while number < last and time.monotonic() < until:
            try:
                # The first answer waits for imports.
                line = lines.get(timeout=WALL if begun is not None else 5 * WALL)
            except queue.Empty:
                now = spent(worker.pid)
                if now - looked > BUSY and now - at_begin < MOST and begun is not None:
                    looked = now
                    continue
                line = ""
            if not line:
                worker.kill()
                words = (folder / f"{target}.stderr").read_text(errors="replace").strip()
                if begun is None:
                    raise RuntimeError(f"the worker does not start: {words[-2000:]}")
                counts["bad"] += 1
                worse(begun, f"the process ended with {worker.wait()}: {words[-300:]}")
                number = begun + 1
                break
            answer = json.loads(line)
            if "begins" in answer:
                begun = answer["begins"]
                at_begin = looked = spent(worker.pid)
                until = min(until, time.monotonic() + seconds)
                continue
            number = answer["ends"] + 1
            counts[answer["kind"]] += 1
            if answer["kind"] == "bad":
                worse(answer["ends"], answer["why"])
        worker.kill()
        worker.wait()
        errors.close()
    return counts, bad, number


def environment_for(targets: list[str], folder: Path) -> dict[str, str]:
    """The environment of workers, with the workspace that artefacts are copied from where it is needed."""
    made = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "SESURGERY_FUZZ_WORKSPACE": str(folder / "made"),
    }
    if set(targets) & set(WORKSPACE):
        code = (
            "import sys, pathlib; from tests.fuzz.targets.artefacts import prepare; prepare(pathlib.Path(sys.argv[1]))"
        )
        subprocess.run([sys.executable, "-c", code, str(folder / "made")], cwd=ROOT, env=made, check=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--target", choices=SHARES, action="append")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, default=10**9)
    asked = parser.parse_args()
    targets = asked.target or list(SHARES)
    with tempfile.TemporaryDirectory(prefix="sesurgery-fuzz-") as name:
        folder = Path(name)
        environment = environment_for(targets, folder)
        whole = sum(SHARES[target] for target in targets)
        bad: list[str] = []
        print(f"seed {asked.seed}", flush=True)
        for target in targets:
            seconds = asked.minutes * 60 * SHARES[target] / whole
            counts, found, _ = run_target(target, asked.seed, asked.first, asked.last, seconds, folder, environment)
            words = ", ".join(f"{counts[kind]} {kind}" for kind in ("done", "refused", "bad"))
            print(f"{target:15} {counts.total():6} cases: {words}", flush=True)
            bad.extend(found)
    print(f"{len(bad)} bad")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
