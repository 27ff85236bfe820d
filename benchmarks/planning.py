"""What planning and surgery cost, that the cost grows linearly with the network, and what it was in an older commit.

    python benchmarks/planning.py
    python benchmarks/planning.py --against 1b0fdc2     # the same, and then that commit and this tree in turn

Networks are opened, planned and changed as the verbs do it: what was drawn for the plan is what the plan is carried out
on. The other commit may have no open networks: there its surgeon draws the network, and draws it again to change it.

First: ResNet-50, building the timm model against viewing, planning and applying, interleaved, medians of nine rounds.
Then: synthetic residual networks of about 1,250, 2,500 and 5,000 nodes with 125, 250 and 500 sites, interleaved, the
best of five rounds; each step's time and its ratio to the smallest. Linear growth gives 1x, 2x, 4x.

Against another commit: that one is checked out in a temporary folder, and five times a fresh process of either tree
takes ResNet-50 and the networks of 125 and 250 sites, the other tree first in every second round. A process takes each
network twice after a warm-up; the better one counts, for other work on the machine makes it slower, never faster. The
figures are ratios of one round's two processes, this tree over the other: the median, and the least and the greatest of
the rounds. What the comparison of traced forwards with the original ones takes of applying is told apart: the other
commit may have none.

Times are CPU times of one thread (threads that wait would count), and Python's cyclic garbage collector runs between
the steps, not in them: a full collection visits every object of the process, whoever made it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
from torch import nn

from sesurgery import pipeline, planner
from sesurgery.artifacts import to_json, write_text
from sesurgery.surgeons.fx.surgeon import FxSurgeon

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "planning.json"
ROUNDS, GROWTH_ROUNDS, PAIRS = 9, 5, 5
STEPS = ("view", "plan", "apply")


class Unit(nn.Module):
    """A basic block: eight nodes and one sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv3, self.bn3 = nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + x)


def spec(shape: list[int], sites: int):
    return pipeline.load_spec(
        {
            "version": 1,
            "model": {"source": "timm", "name": "resnet50"},
            "input": {"shape": shape},
            "surgery": [{"insert": {"block": "se", "min_width": 2}, "at": "residual", "expect": sites}],
        }
    )


def timed(work: Callable[[], object]) -> tuple[float, object]:
    gc.collect()
    gc.disable()
    try:
        started = time.process_time()
        result = work()
        return time.process_time() - started, result
    finally:
        gc.enable()


class BySurgeon:
    """An open network for a commit that has none: drawn for its plan, and once more when the plan is carried out."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        self.model, self.surgeon = model, FxSurgeon(shape)

    @functools.cached_property
    def view(self):
        return self.surgeon.view(self.model)

    def plan(self, told):
        return planner.plan(told, self.view)

    def apply(self, plan):
        return self.surgeon.apply(self.model, plan)


def opened(model: nn.Module, shape: tuple[int, ...]):
    """The network as the verbs of this tree open it."""
    try:
        from sesurgery.networks.torch_network import TorchNetwork
    except ImportError:
        return BySurgeon(model, shape)
    return TorchNetwork(model, shape)


def resnet50() -> dict[str, float]:
    """Medians in seconds, building and operating in turn."""
    shape, told = (3, 224, 224), spec([3, 224, 224], 16)
    steps: dict[str, list[float]] = {"build": [], "view and plan": [], "apply": []}
    for _ in range(ROUNDS):
        seconds, model = timed(lambda: timm.create_model("resnet50"))
        steps["build"].append(seconds)
        subject = opened(model, shape)
        seconds, plan = timed(lambda subject=subject: subject.plan(told))
        steps["view and plan"].append(seconds)
        steps["apply"].append(timed(lambda subject=subject, plan=plan: subject.apply(plan))[0])
    return {name: statistics.median(values) for name, values in steps.items()}


def growth() -> list[dict[str, float]]:
    """Seconds of each step on networks of one, two and four sizes, in turn."""
    networks = [nn.Sequential(*(Unit(8) for _ in range(units))) for units in (125, 250, 500)]
    rows: list[dict[str, float]] = [{"sites": len(model)} for model in networks]
    for _ in range(GROWTH_ROUNDS):
        for row, model in zip(rows, networks, strict=True):
            subject, told = opened(model, (8, 8, 8)), spec([8, 8, 8], len(model))
            view_s, view = timed(lambda subject=subject: subject.view)
            plan_s, plan = timed(lambda subject=subject, told=told: subject.plan(told))
            apply_s, _ = timed(lambda subject=subject, plan=plan: subject.apply(plan))
            for name, seconds in (("view", view_s), ("plan", plan_s), ("apply", apply_s)):
                row[name] = min(row.get(name, seconds), seconds)
            row["nodes"] = len(view)
    return rows


@contextlib.contextmanager
def comparing_timed() -> Iterator[list[float]]:
    """Within it the seconds are noted that the comparison takes; a tree that compares nothing notes none."""
    spent: list[float] = []

    def noted(work: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(work)
        def run(*args: object, **kwargs: object) -> object:
            started = time.process_time()
            try:
                return work(*args, **kwargs)
            finally:
                spent.append(time.process_time() - started)

        return run

    try:
        from sesurgery.surgeons.fx import operations
    except ImportError:
        yield spent
        return
    # There the copy that is run, the graphs made runnable, and the runs are for the comparison alone.
    before = {name: getattr(operations, name) for name in ("twin", "compiled", "compare")}
    for name, work in before.items():
        setattr(operations, name, noted(work))
    try:
        yield spent
    finally:
        for name, work in before.items():
            setattr(operations, name, work)


def once(model: nn.Module, shape: tuple[int, int, int], sites: int) -> dict[str, float]:
    """The seconds of each step on a network, and those of them that the comparison takes."""
    subject, told = opened(model, shape), spec([*shape], sites)
    view_s, _ = timed(lambda: subject.view)
    plan_s, plan = timed(lambda: subject.plan(told))
    with comparing_timed() as spent:
        apply_s, _ = timed(lambda: subject.apply(plan))
    return {"view": view_s, "plan": plan_s, "apply": apply_s, "comparison": sum(spent)}


def measured() -> dict[str, dict[str, float]]:
    """In this process: the better of two passes over every network, after one."""
    networks = {
        f"{units} units": (nn.Sequential(*(Unit(8) for _ in range(units))), (8, 8, 8), units) for units in (125, 250)
    }
    networks["ResNet-50"] = (timm.create_model("resnet50"), (3, 224, 224), 16)
    found: dict[str, dict[str, float]] = {}
    for number in range(3):
        for name, network in networks.items():
            seconds = once(*network)
            if number and sum(map(seconds.get, STEPS)) < sum(map(found.get(name, {}).get, STEPS, [9e9] * 3)):
                found[name] = seconds
    return found


def in_turn(commit: str) -> dict[str, object]:
    """The ratios of this tree over that commit."""
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(other), commit], cwd=ROOT, check=True)
        try:
            rev = subprocess.run(["git", "rev-parse", "HEAD"], cwd=other, check=True, capture_output=True, text=True)
            for number in range(PAIRS):
                order = (ROOT, other) if number % 2 else (other, ROOT)
                found = {tree: in_tree(tree) for tree in order}
                rounds.append((found[ROOT], found[other]))
                print(f"round {number + 1} of {PAIRS}", file=sys.stderr)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(other)], cwd=ROOT, check=True)
    return {
        "commit": rev.stdout.strip()[:12],
        "rounds": PAIRS,
        "networks": {name: compared(rounds, name) for name in rounds[0][0]},
    }


def in_tree(tree: Path) -> dict[str, dict[str, float]]:
    """What a fresh process measures with that tree's package."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--measure"]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True, cwd=tree)
    found = json.loads(done.stdout)
    assert Path(found["package"]).is_relative_to(tree.resolve()), found["package"]
    return found["seconds"]


def compared(rounds: list[tuple[dict, dict]], name: str) -> dict[str, object]:
    """One network's ratios in all rounds."""
    pairs = [(ours[name], theirs[name]) for ours, theirs in rounds]

    def total(seconds: dict[str, float]) -> float:
        return sum(seconds[step] for step in STEPS)

    ratios = {step: [ours[step] / theirs[step] for ours, theirs in pairs] for step in STEPS}
    ratios["all"] = [total(ours) / total(theirs) for ours, theirs in pairs]
    ratios["all but the comparison"] = [(total(ours) - ours["comparison"]) / total(theirs) for ours, theirs in pairs]
    return {
        "ratios": {
            step: {"median": statistics.median(one), "least": min(one), "greatest": max(one)}
            for step, one in ratios.items()
        },
        "seconds": {
            tree: {step: statistics.median(pair[index][step] for pair in pairs) for step in (*STEPS, "comparison")}
            for index, tree in enumerate(("this", "other"))
        },
        "comparison_of_apply": statistics.median(ours["comparison"] / ours["apply"] for ours, _ in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", help="measure that commit, too, in turn with this tree")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if asked.measure:
        import sesurgery

        print(json.dumps({"package": sesurgery.__file__, "seconds": measured()}))
        return
    from provenance import provenance

    taken, fifty, rows = provenance(), resnet50(), growth()
    total = fifty["view and plan"] + fifty["apply"]
    print("ResNet-50: " + ", ".join(f"{name} {seconds:.3f} s" for name, seconds in fifty.items()))
    print(f"planning and applying take {total / fifty['build']:.2f} x the time of building the model")
    for row in rows:
        ratios = ", ".join(f"{step} {row[step]:.3f} s ({row[step] / rows[0][step]:.1f}x)" for step in STEPS)
        print(f"{row['nodes']} nodes, {row['sites']} sites: {ratios}")
    data = {**taken, "resnet50_seconds": fifty, "growth": rows}
    if asked.against:
        data["against"] = against = in_turn(asked.against)
        for name, found in against["networks"].items():
            ratios = ", ".join(
                f"{step} {one['median']:.2f} ({one['least']:.2f} to {one['greatest']:.2f})"
                for step, one in found["ratios"].items()
            )
            print(f"{name}, times {against['commit']}: {ratios}; comparing {found['comparison_of_apply']:.0%} of apply")
    write_text(RESULTS, to_json(json.loads(json.dumps(data))))


if __name__ == "__main__":
    main()
