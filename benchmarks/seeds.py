"""The experiments of the projects that this one grew from, each at a hundredth of its size, from end to end.

    python benchmarks/seeds.py                       all of specs/studies/seeds/, smallest first
    python benchmarks/seeds.py ratio_1_to_32 stages  some of them

A hundredth: of the training samples and of the epochs, one seed; the networks, the sites, the cells and the sizes of
images are those of the spec. The samples are made, as folders of pictures with lying and standing stripes in noise: the
scores of such a run say nothing, that it runs does. Results are added to benchmarks/results/seeds.json as they come.
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

from sesurgery.pipeline.talk import Silent

if TYPE_CHECKING:
    from sesurgery.spec import Spec

ROOT = Path(__file__).resolve().parent
SEEDS = ROOT.parent / "specs" / "studies" / "seeds"
RESULTS = ROOT / "results" / "seeds.json"
SAMPLES = {"cifar10": 50_000, "cifar100": 50_000, "tiny_imagenet": 100_000, "image_folder": 1_281_167}
SIDES = {"cifar10": 32, "cifar100": 32, "tiny_imagenet": 64, "image_folder": 224}


def pictures(folder: Path, count: int, side: int) -> None:
    """So many pictures in folder/train and a fifth as many in folder/val, of two classes."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for split, number in (("train", count), ("val", max(4, count // 5))):
        for index in range(number):
            pixels = random.integers(0, 128, (side, side, 3), dtype=np.uint8)
            lying = index % 2 == 0
            pixels[slice(None, None, 2) if lying else slice(None), slice(None) if lying else slice(None, None, 2)] += (
                100
            )
            path = folder / split / ("lying" if lying else "standing") / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def hundredth(spec: Spec, root: Path, share: float = 0.01) -> Spec:
    """The spec with that share of its epochs and of its samples, which lie in `root` afterwards, and one seed."""
    name = spec.train.data.name
    samples = max(8, round(SAMPLES[name] * share))
    pictures(root, samples, SIDES[name])
    return spec.with_(
        {
            "model.kwargs": {**spec.model.kwargs, "num_classes": 2},
            "train.data": {"dataset": "image_folder", "root": str(root)},
            "train.epochs": max(1, round(spec.train.epochs * share)),
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
    from sesurgery.reports.study import to_json

    started, spent = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        spec = hundredth(pipeline.load_spec(SEEDS / f"{name}.yaml"), Path(folder) / "data", share)
        studied = pipeline.study(spec, pipeline.Workspace(Path(folder)), f"{name}.yaml", Failures())
        cells = to_json(studied.answer)["cells"]
        samples = len(list(Path("data/train").rglob("*.png")))
    return {
        "cells": len(cells),
        "failed": sum(cell["failed"] for cell in cells),
        "params": [cell["params"] for cell in cells],
        "samples": samples,
        "epochs": spec.train.epochs,
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(time.process_time() - spent, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in SEEDS.glob("*.yaml")))
    parser.add_argument("--share", type=float, default=0.01, help="of samples and epochs")
    asked = parser.parse_args()
    from sesurgery.artifacts import cpu_name, to_json, versions, write_text

    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"studies": {}}
    for name in asked.names:
        found = run(name, asked.share)
        print(
            f"{name}: {found['cells']} cells, {found['failed']} failed, {found['samples']} samples,"
            f" {found['seconds']} s ({found['processor_seconds']} s of processor time)",
            flush=True,
        )
        results["studies"][name] = {**found, "share": asked.share}
        results |= {"cpu": cpu_name(), "versions": versions()}
        write_text(RESULTS, to_json(results))


if __name__ == "__main__":
    main()
