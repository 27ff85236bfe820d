"""The experiments of the projects that this one grew from, each at a hundredth of its size, from end to end.

    python benchmarks/seeds.py                       all of specs/studies/seeds/ that have no result yet
    python benchmarks/seeds.py ratio_1_to_32 stages  some of them
    python benchmarks/seeds.py --share 0.0001 convergence
    python benchmarks/seeds.py --table               what stands in docs/studies.md, from the committed results

A hundredth: of the training samples and of the epochs, one seed; the networks, the cells and the sizes of images are
those of the spec, but for those in SMALLER, which would take hours of a core: the side stands in the results. The
samples are made, as folders of pictures of waves in noise, those of a class of one direction and length: the scores of
such a run say nothing, that it runs does. Results are added to benchmarks/results/seeds.json as they come.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sesurgery.talk import Silent

if TYPE_CHECKING:
    from sesurgery.spec import Spec

ROOT = Path(__file__).resolve().parent
SEEDS = ROOT.parent / "specs" / "studies" / "seeds"
RESULTS = ROOT / "results" / "seeds.json"
SAMPLES = {"cifar10": 50_000, "cifar100": 50_000, "tiny_imagenet": 100_000, "image_folder": 1_281_167}
SIDES = {"cifar10": 32, "cifar100": 32, "tiny_imagenet": 64, "image_folder": 224}
CLASSES = {"cifar10": 10, "cifar100": 100, "tiny_imagenet": 200, "image_folder": 1000}
SMALLER = {"convergence": 64}
"""Sides of images, pixels."""


def pictures(folder: Path, count: int, side: int, classes: int) -> None:
    """So many pictures in folder/train and a fifth as many in folder/val, of each class one at least."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    row, column = np.mgrid[0:side, 0:side] * (2 * np.pi / side)
    for split, number in (("train", count), ("val", max(classes, count // 5))):
        for index in range(number):
            chosen = index % classes
            wave = 64 * np.sin(row * (chosen % 16) + column * (1 + chosen // 16)) + 64
            pixels = wave[:, :, None] + random.integers(0, 128, (side, side, 3))
            path = folder / split / f"{chosen:04}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)


def hundredth(spec: Spec, root: Path, share: float = 0.01) -> Spec:
    """The spec with a hundredth of its epochs, one seed, and that share of its samples, which it puts into `root`."""
    name = spec.train.data.name
    samples = max(8, round(SAMPLES[name] * share))
    classes, side = min(CLASSES[name], samples), SMALLER.get(spec.name, SIDES[name])
    pictures(root, samples, side, classes)
    return spec.with_(
        {
            "input.shape": [3, side, side] if spec.name in SMALLER else list(spec.input.shape),
            "model.kwargs": {**spec.model.kwargs, "num_classes": classes},
            "train.data": {"dataset": "image_folder", "root": str(root)},
            "train.epochs": max(1, round(spec.train.epochs * 0.01)),
            "train.batch_size": min(spec.train.batch_size, samples // 4),
            "train.optimizer.lr": 0.01,
            "train.schedule": None,
            "study.seeds": [0],
        }
    )


class Failures(Silent):
    """Says what failed, and nothing else."""

    def say(self, text: str) -> None:
        if "fail" in text:
            print(text, file=sys.stderr)


def run(name: str, share: float = 0.01) -> dict[str, Any]:
    """The study in a folder of its own; raises where a trial fails."""
    from sesurgery import pipeline
    from sesurgery.reports.pages.study import to_json

    started, spent = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        spec = hundredth(pipeline.load_spec(SEEDS / f"{name}.yaml"), Path(folder) / "data", share)
        studied = pipeline.study(spec, pipeline.Workspace(Path(folder)), f"{name}.yaml", Failures())
        cells = to_json(studied.answer)["cells"]
        if any(row.params is None for row in studied.answer.rows):
            sys.exit(f"{name} was stopped: its result is not kept")
        samples = len(list(Path("data/train").rglob("*.png")))
    return {
        "cells": len(cells),
        "failed": sum(cell["failed"] for cell in cells),
        "params": {str(row.cell): row.params for row in studied.answer.rows},
        "classes": spec.model.kwargs["num_classes"],
        "samples": samples,
        "side": spec.input.shape[1],
        "epochs": spec.train.epochs,
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(time.process_time() - spent, 1),
    }


def table(results: dict[str, Any]) -> str:
    """A row an experiment, in Markdown; parameters are those of the plain network and of the largest cell."""
    lines = ["| experiment | cells | classes | samples | epochs | parameters | processor time |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, found in sorted(results["studies"].items()):
        sizes = [*found["params"].values()]
        cells = [name, *(f"{found[key]:,}" for key in ("cells", "classes", "samples", "epochs"))]
        cells += [f"{min(sizes):,} to {max(sizes):,}", f"{found['processor_seconds']:.0f} s"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="default: those that have no result")
    parser.add_argument("--share", type=float, default=0.01, help="of the samples")
    parser.add_argument("--table", action="store_true", help="only print the results as a table")
    asked = parser.parse_args()
    from provenance import provenance

    from sesurgery.artifacts import to_json, write_text

    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"studies": {}}
    if asked.table:
        print(table(results))
        return
    taken = provenance()
    every = sorted(path.stem for path in SEEDS.glob("*.yaml"))
    for name in asked.names or [name for name in every if name not in results["studies"]]:
        found = run(name, asked.share)
        print(
            f"{name}: {found['cells']} cells, {found['failed']} failed, {found['samples']} samples,"
            f" {found['seconds']} s ({found['processor_seconds']} s of processor time)",
            flush=True,
        )
        # Another process may have added some.
        results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else results
        results["studies"][name] = {**found, "share": asked.share, "device": taken["device"]}
        results |= taken
        write_text(RESULTS, to_json(results))


if __name__ == "__main__":
    main()
