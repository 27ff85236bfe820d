"""What planning and surgery cost, and that the cost grows linearly with the network.

    python benchmarks/planning.py

First: ResNet-50, building the timm model against viewing, planning and applying, interleaved, medians of nine rounds.
Then: synthetic residual networks of about 1,250, 2,500 and 5,000 nodes with 125, 250 and 500 sites, interleaved, the
best of five rounds; each step's time and its ratio to the smallest. Linear growth gives 1x, 2x, 4x.

Times are CPU times of one thread (threads that wait would count), and Python's cyclic garbage collector runs between
the steps, not in them: a full collection visits every object of the process, whoever made it.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import nn

from sesurgery import pipeline, planner
from sesurgery.artifacts import to_json, write_text
from sesurgery.surgeons.fx.surgeon import FxSurgeon

RESULTS = Path(__file__).resolve().parent / "results" / "planning.json"
ROUNDS, GROWTH_ROUNDS = 9, 5


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


def resnet50() -> dict[str, float]:
    """Medians in seconds, building and operating in turn."""
    shape, told = (3, 224, 224), spec([3, 224, 224], 16)
    steps: dict[str, list[float]] = {"build": [], "view and plan": [], "apply": []}
    for _ in range(ROUNDS):
        seconds, model = timed(lambda: timm.create_model("resnet50"))
        steps["build"].append(seconds)
        surgeon = FxSurgeon(shape)
        seconds, plan = timed(lambda model=model, surgeon=surgeon: planner.plan(told, surgeon.view(model)))
        steps["view and plan"].append(seconds)
        steps["apply"].append(timed(lambda model=model, surgeon=surgeon, plan=plan: surgeon.apply(model, plan))[0])
    return {name: statistics.median(values) for name, values in steps.items()}


def growth() -> list[dict[str, float]]:
    """Seconds of each step on networks of one, two and four sizes, in turn."""
    networks = [nn.Sequential(*(Unit(8) for _ in range(units))) for units in (125, 250, 500)]
    rows: list[dict[str, float]] = [{"sites": len(model)} for model in networks]
    for _ in range(GROWTH_ROUNDS):
        for row, model in zip(rows, networks, strict=True):
            surgeon, told = FxSurgeon((8, 8, 8)), spec([8, 8, 8], len(model))
            view_s, view = timed(lambda model=model, surgeon=surgeon: surgeon.view(model))
            plan_s, plan = timed(lambda told=told, view=view: planner.plan(told, view))
            apply_s, _ = timed(lambda model=model, surgeon=surgeon, plan=plan: surgeon.apply(model, plan))
            for name, seconds in (("view", view_s), ("plan", plan_s), ("apply", apply_s)):
                row[name] = min(row.get(name, seconds), seconds)
            row["nodes"] = len(view)
    return rows


def main() -> None:
    from provenance import provenance

    torch.manual_seed(0)
    torch.set_num_threads(1)
    taken, fifty, rows = provenance(), resnet50(), growth()
    total = fifty["view and plan"] + fifty["apply"]
    print("ResNet-50: " + ", ".join(f"{name} {seconds:.3f} s" for name, seconds in fifty.items()))
    print(f"planning and applying take {total / fifty['build']:.2f} x the time of building the model")
    for row in rows:
        steps = ("view", "plan", "apply")
        ratios = ", ".join(f"{step} {row[step]:.3f} s ({row[step] / rows[0][step]:.1f}x)" for step in steps)
        print(f"{row['nodes']} nodes, {row['sites']} sites: {ratios}")
    data = {**taken, "resnet50_seconds": fifty, "growth": rows}
    write_text(RESULTS, to_json(json.loads(json.dumps(data))))


if __name__ == "__main__":
    main()
