"""kill -9 at random moments of a training, and what a resume makes of it: `python benchmarks/kill_and_resume.py`.

A training is killed, resumed and killed again, until it comes to its end. Its weights are then compared, bit for
bit, with those of a training that nobody killed. Moments are drawn uniformly over the time that a whole run takes.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import random
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

PARTS = {
    "epochs": 3,
    "batch_size": 32,
    "accumulate": 2,
    "threads": 1,
    "ema": {"decay": 0.9},
    "clip_grad": 1.0,
    "label_smoothing": 0.1,
    "augment": {"flip": True, "shift": 1, "mixup": 0.2, "cutmix": 1.0},
    "freeze": {"trained": ["head"], "epochs": 1},
    "optimizer": {"name": "adamw", "lr": 1e-3},
}


def train(folder: Path, minutes: float) -> None:
    """Train or go on, and write the digest of the weights beside the checkpoint."""
    import torch

    from sesurgery import pipeline
    from sesurgery.networks.cifar_resnet import CifarResNet
    from sesurgery.training.data.digits import Digits
    from sesurgery.training.history import CHECKPOINT
    from sesurgery.training.loop import FitRequest, fit

    torch.manual_seed(0)
    network = CifarResNet(8, in_channels=1)
    spec = {
        "version": 1,
        "model": {"source": "timm", "name": "resnet18"},
        "input": {"shape": [1, 16, 16]},
        "surgery": [{"insert": "se", "at": "residual"}],
        "train": {**PARTS, "save_minutes": minutes},
    }
    recipe = pipeline.load_spec(spec).train
    fit(
        FitRequest(
            network, Digits(held_out=0.6).load((1, 8, 8)), recipe, folder, resume=(folder / CHECKPOINT).is_file()
        )
    )
    digest = hashlib.sha256()
    for key, value in network.state_dict().items():
        digest.update(key.encode() + value.contiguous().numpy().tobytes())
    (folder / "digest").write_text(digest.hexdigest())


def run(context: multiprocessing.context.BaseContext, folder: Path, minutes: float) -> BaseProcess:
    child = context.Process(target=train, args=(folder, minutes))  # type: ignore[attr-defined]
    child.start()
    return child  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    # A server that has imported everything and has no thread: a child costs no import.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sesurgery.pipeline", "sesurgery.training.loop", "sesurgery.training.data.digits"])
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        for attempt in ("first", "whole"):
            # The server starts, and imports, with the first.
            whole, started = Path(name) / attempt, time.perf_counter()
            run(context, whole, 10.0 if attempt == "whole" else 1e-9).join()
            seconds = time.perf_counter() - started
        expected = (whole / "digest").read_text()
        kills, ends, same, within = 0, 0, 0, 0
        while kills < given.kills:
            folder = Path(name) / f"killed{ends}"
            while not (folder / "digest").exists():
                child = run(context, folder, 1e-9)
                child.join(draw.uniform(0, seconds) if kills < given.kills else None)
                if child.is_alive():
                    child.kill()
                    child.join()
                    kills += 1
                    within += _within_an_epoch(folder)
                elif child.exitcode:
                    raise SystemExit(f"a resume ended with {child.exitcode}: see above")
            ends += 1
            same += (folder / "digest").read_text() == expected
        print(f"{kills} kills, {within} of them with a checkpoint within an epoch; {same} of {ends} runs end the same")
        raise SystemExit(0 if same == ends else 1)


def _within_an_epoch(folder: Path) -> bool:
    from sesurgery.training import checkpoint
    from sesurgery.training.history import CHECKPOINT

    path = folder / CHECKPOINT
    return path.is_file() and checkpoint.read(path).partial is not None


if __name__ == "__main__":
    main()
