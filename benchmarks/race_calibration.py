"""Whether a race's interval is right: an engine against its own copy, and against itself slowed by a known 5 %.

    python benchmarks/race_calibration.py                        100 races on a quiet machine, 100 beside a busy core
    python benchmarks/race_calibration.py --races 20 --only quiet
    python benchmarks/race_calibration.py --backend openvino

A race has three engines, all loaded from one file: the engine, its copy, and one whose every run counts as 5 % longer
than it was, so that this is known exactly. So each race answers both questions: does the
interval of the engine over its copy cover zero (asked of 93 in 100, for a 95 % interval), and does that of the slowed
one over the copy leave zero out (asked of 95 in 100)? Races are those of `sesurgery bench` by its defaults, on a
ResNet-20 with SE for 32 x 32 pixels and random weights. Every five races have a process of their own. The busy core
runs an endless loop in a process beside them.

Nothing else may run for the figures under `quiet`. The results go to benchmarks/results/race_calibration.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sesurgery.artifacts import to_json, write_text
from sesurgery.backends import BACKENDS
from sesurgery.backends.base import Array, BatchRange, BuildOptions, Runner
from sesurgery.spec.latency import Latency
from sesurgery.verification.latency import race

RESULTS = Path(__file__).resolve().parent / "results" / "race_calibration.json"
SHAPE = (3, 32, 32)
SLOWER = 0.05
PER_PROCESS = 5
COVER, EXCLUDE = 0.93, 0.95
"""What is asked: the share of races whose interval covers zero, and of those that leave it out for the slowed one."""


class Slowed(Runner):
    """An engine whose runs count as `SLOWER` longer than they were."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.inputs, self.outputs = runner.inputs, runner.outputs

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self.runner.infer(feeds)

    def time(self, feeds: Mapping[str, Array], repeats: int) -> np.ndarray:
        return (1 + SLOWER) * np.asarray(self.runner.time(feeds, repeats))

    def close(self) -> None:
        self.runner.close()


@dataclass(frozen=True)
class Contender:
    """An engine of a file, slowed or not."""

    name: str
    backend: str
    engine: Path
    threads: int
    slowed: bool = False

    def load(self) -> Runner:
        runner = BACKENDS.load(self.backend)().load(self.engine, self.threads)
        return Slowed(runner) if self.slowed else runner


def build(backend: str, folder: Path) -> Path:
    """The engine."""
    import torch

    import sesurgery
    from sesurgery.networks.cifar_resnet import resnet20
    from sesurgery.networks.export import export
    from sesurgery.spec.export import Export

    torch.manual_seed(0)
    plain = resnet20(num_classes=10, in_channels=3).eval()
    network = sesurgery.insert(plain, example_input=torch.zeros(1, *SHAPE), reduction=4).eval()
    export(network, SHAPE, folder / "net.onnx", Export())
    builder = BACKENDS.load(backend)()
    engine = folder / f"net{builder.suffix}"
    builder.build(folder / "net.onnx", engine, BuildOptions(batch=BatchRange(1, 1, 8)))
    return engine


def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)


def races(engine: Path, backend: str, threads: int, count: int, plan: Latency) -> list[dict[str, object]]:
    """What so many races in this process found."""
    contenders = [
        Contender("engine", backend, engine, threads),
        Contender("copy", backend, engine, threads),
        Contender("slowed", backend, engine, threads, slowed=True),
    ]
    found = []
    for _ in range(count):
        report = race(contenders, {"image": image()}, plan)
        same, slowed = report.tax, report.as_exported_tax
        assert same is not None
        assert slowed is not None
        found.append(
            {
                "same": [same.value, same.low, same.high],
                "slowed": [slowed.value, slowed.low, slowed.high],
                "loaded_first": same.load_order,
                "seconds": report.wall_seconds,
                "placements": report.placements,
                "variation": max(timing.variation for timing in report.engines),
            }
        )
    return found


@contextmanager
def beside(busy: bool):
    """A process that keeps one core busy, or none."""
    if not busy:
        yield
        return
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        spinning.kill()
        spinning.wait()


def summary(name: str, found: list[dict]) -> dict[str, object]:
    """Coverage in numbers, printed too."""
    same, slowed = np.array([each["same"] for each in found]), np.array([each["slowed"] for each in found])
    covers = int(((same[:, 1] <= 0) & (same[:, 2] >= 0)).sum())
    excludes = int((slowed[:, 1] > 0).sum())
    count = len(found)
    row: dict[str, object] = {
        "races": count,
        "same_covers_zero": covers,
        "same_positive": int((same[:, 0] > 0).sum()),
        "slowed_excludes_zero": excludes,
        "slowed_median": float(np.median(slowed[:, 0])),
        "half_width": float(np.median((same[:, 2] - same[:, 1]) / 2)),
        "loaded_first": float(np.mean([each["loaded_first"] for each in found])),
        "placements": float(np.median([each["placements"] for each in found])),
        "variation": float(np.median([each["variation"] for each in found])),
        "seconds_a_race": float(np.median([each["seconds"] for each in found])),
        "found": found,
    }
    print(
        f"{name}: of {count} races against its copy, {covers} cover zero (asked {COVER:.0%}: "
        f"{'yes' if covers >= COVER * count else 'NO'}), {row['same_positive']} values are above it; "
        f"slowed by {SLOWER:.0%}, {excludes} leave zero out (asked {EXCLUDE:.0%}: "
        f"{'yes' if excludes >= EXCLUDE * count else 'NO'}), median {row['slowed_median']:+.1%}\n"
        f"  interval +- {row['half_width']:.2%}, loaded first {row['loaded_first']:+.2%}, "
        f"{row['placements']:.0f} placements, variation {row['variation']:.1%}, {row['seconds_a_race']:.1f} s a race",
        flush=True,
    )
    return row


def main() -> None:
    from provenance import provenance

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=100)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", choices=("quiet", "busy"))
    parser.add_argument("--rounds", type=int, default=Latency().rounds)
    parser.add_argument("--placements", type=int, default=Latency().placements)
    parser.add_argument("--no-results", action="store_true", help="print, and leave the results' file alone")
    parser.add_argument("--worker", metavar="ENGINE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    plan = Latency(rounds=given.rounds, placements=given.placements)
    if given.worker:
        print(json.dumps(races(Path(given.worker), given.backend, given.threads, given.races, plan)))
        return
    taken = provenance()
    words = ["--backend", given.backend, "--threads", str(given.threads)]
    words += ["--rounds", str(given.rounds), "--placements", str(given.placements)]
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        engine = build(given.backend, Path(folder))
        for name in [given.only] if given.only else ["quiet", "busy"]:
            found: list[dict] = []
            with beside(name == "busy"):
                while len(found) < given.races:
                    count = str(min(PER_PROCESS, given.races - len(found)))
                    job = [sys.executable, __file__, *words, "--races", count, "--worker", str(engine)]
                    done = subprocess.run(job, capture_output=True, text=True, check=True)
                    found += json.loads(done.stdout.splitlines()[-1])
            rows[name] = summary(name, found)
    if not given.no_results:
        machine = {**taken, "threads": given.threads}
        known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        found = {name: {**machine, "plan": plan.model_dump(), **row} for name, row in rows.items()}
        known[given.backend] = {**known.get(given.backend, {}), **found}
        write_text(RESULTS, to_json(known))


if __name__ == "__main__":
    main()
