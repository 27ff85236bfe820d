"""kill -9 at random moments of a training, and what a resume makes of it: `python benchmarks/kill_and_resume.py`.

A training is killed, resumed and killed again, until it comes to its end. Its weights are then compared, bit for
bit, with those of a training that nobody killed. Moments are drawn uniformly over the time that a whole run takes, and
written with what they met to benchmarks/results/kill_and_resume.json unless --no-results is given. Saved is after every
step, so that the state gone on from is nearly always one within an epoch.
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

from sesurgery.artifacts import to_json, write_text

RESULTS = Path(__file__).resolve().parent / "results" / "kill_and_resume.json"
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
    from provenance import provenance

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-results", action="store_true", help="print, and leave the results' file alone")
    given, taken = parser.parse_args(), provenance()
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
        kills: list[dict[str, object]] = []
        ends, same = 0, 0
        while len(kills) < given.kills:
            folder = Path(name) / f"killed{ends}"
            while not (folder / "digest").exists():
                child = run(context, folder, 1e-9)
                moment = draw.uniform(0, seconds) if len(kills) < given.kills else None
                child.join(moment)
                if child.is_alive():
                    child.kill()
                    child.join()
                    kills.append({"run": ends, "after_seconds": round(moment or 0, 3), **_state(folder)})
                elif child.exitcode:
                    raise SystemExit(f"a resume ended with {child.exitcode}: see above")
            ends += 1
            same += (folder / "digest").read_text() == expected
        within = sum(bool(kill["batches"]) for kill in kills)
        print(f"{len(kills)} kills, {within} of them with a checkpoint within an epoch", end="; ")
        print(f"{same} of {ends} runs end the same")
        if not given.no_results:
            whole_run = {"whole_run_seconds": round(seconds, 3), "recipe": PARTS}
            counts = {"kills": len(kills), "within_an_epoch": within, "runs": ends, "runs_that_end_the_same": same}
            write_text(RESULTS, to_json({**taken, **counts, **whole_run, "moments": kills}))
        raise SystemExit(0 if same == ends else 1)


def _state(folder: Path) -> dict[str, int | None]:
    """What the kill left to go on from: epochs that are done, and batches of the next; None without a checkpoint."""
    from sesurgery.training import checkpoint
    from sesurgery.training.history import CHECKPOINT

    path = folder / CHECKPOINT
    if not path.is_file():
        return {"epochs": None, "batches": None}
    saved = checkpoint.read(path)
    return {"epochs": len(saved.history), "batches": saved.partial.batches if saved.partial else 0}


if __name__ == "__main__":
    main()
