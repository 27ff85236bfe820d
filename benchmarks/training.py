"""What a step of `sesurgery train` costs beside a bare torch loop and one of timm's parts.

    python benchmarks/training.py                     SE-ResNet-20 on generated images of 32 x 32 pixels
    python benchmarks/training.py --device cuda --network timm:resnet50 --size 224 --batch 128

The same network, images in memory, order, batch and optimiser (SGD, momentum 0.9, Nesterov) in all three. `bare` is
forward, loss, backward and step; `timm` adds what timm's training script does in a step without mixed precision: its
optimiser from the factory, its loss and its schedule; `ours` is `fit` itself, Lightning, checkpoints between epochs and
metrics within, timed from the end of the first batch to the end of the last one of each epoch. The three take turns in
rounds of one epoch, on one network, which is made anew for each round, as where it lies in memory changes its speed. A
figure is the median over rounds of the time over the bare loop's in the same round, with the interval of the median;
once of the time on the clock, and once of the processor time of all threads, which other programs disturb less. At most
3 % over the bare loop is the aim: it ends with 1 where the interval of the processor time lies above. Results go to
benchmarks/results/training.json unless --no-results is given.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from sesurgery import api, pipeline
from sesurgery.artifacts import cpu_name, to_json, write_text
from sesurgery.training.batches import Shuffled
from sesurgery.training.data.base import Data, Split
from sesurgery.training.loop import FitRequest, fit

RESULTS = Path(__file__).resolve().parent / "results" / "training.json"
RATE = 0.01
MOST = 1.03


@dataclass(frozen=True)
class Spent:
    """Seconds on the clock, and of processors."""

    time: float
    processor_time: float

    @staticmethod
    def now() -> Spent:
        return Spent(time.perf_counter(), time.process_time())

    def since(self, begin: Spent) -> Spent:
        return Spent(self.time - begin.time, self.processor_time - begin.processor_time)


def generated(count: int, size: int) -> Data:
    def split(samples: int, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        return Split(torch.randn(samples, 3, size, size, generator=generator), torch.arange(samples) % 10)

    return Data(split(count, 0), split(10, 1), tuple("abcdefghij"), "generated")


def network(name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    source, _, model = name.partition(":")
    given = {"source": source, "name": model, "kwargs": {"num_classes": 10}}
    rule = {"insert": {"block": "se", "reduction": 4, "min_width": 8}, "at": "residual"}
    spec = {"version": 1, "model": given, "input": {"shape": [3, size, size]}, "surgery": [rule]}
    return api.apply(spec)


def bare(model: nn.Module, data: Data, batch: int, device: str) -> Callable[[], Spent]:
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, nesterov=True)

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return _loop(step, model, data, batch, device)


def of_timm(model: nn.Module, data: Data, batch: int, device: str) -> Callable[[], Spent]:
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    optimizer = create_optimizer_v2(model, opt="sgd", lr=RATE, momentum=0.9)
    scheduler, _ = create_scheduler_v2(optimizer, num_epochs=1000, updates_per_epoch=100, step_on_epochs=False)
    loss_of, updates = LabelSmoothingCrossEntropy(smoothing=0.0), 0

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        nonlocal updates
        loss = loss_of(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        updates += 1
        scheduler.step_update(updates)

    return _loop(step, model, data, batch, device)


def _loop(
    step: Callable[[torch.Tensor, torch.Tensor], None], model: nn.Module, data: Data, batch: int, device: str
) -> Callable[[], Spent]:
    model.to(device).train()

    def epoch() -> Spent:
        started = Spent.now()
        for index, (images, labels) in enumerate(Shuffled(data.train, batch, 0)):
            step(images.to(device), labels.to(device))
            if index == 0:
                _wait(device)
                started = Spent.now()
        _wait(device)
        return Spent.now().since(started)

    return epoch


def ours(model: nn.Module, data: Data, batch: int, device: str) -> Callable[[], Spent]:
    base = {"source": "timm", "name": "resnet18"}
    spec = {
        "version": 1,
        "model": base,
        "input": {"shape": [3, 32, 32]},
        "surgery": [{"insert": "se", "at": "residual"}],
        "train": {
            "epochs": 1,
            "batch_size": batch,
            "optimizer": {"lr": RATE, "weight_decay": 0.0, "warmup_epochs": 0.0},
        },
    }
    recipe = pipeline.load_spec(spec).train

    def epoch() -> Spent:
        marks: list[Spent] = []

        def beat(phase: str, done: int, of: int) -> None:
            if phase == "train" and done in (1, of):
                _wait(device)
                marks.append(Spent.now())

        with tempfile.TemporaryDirectory() as folder:
            fit(FitRequest(model, data, recipe, Path(folder), heartbeat=beat))
        return marks[-1].since(marks[0])

    return epoch


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _interval(values: list[float]) -> tuple[float, float]:
    """The order statistics that hold the median with at least 95 %."""
    from scipy.stats import binom

    ordered = sorted(values)
    low = int(binom.ppf(0.025, len(ordered), 0.5))
    return ordered[max(0, low - 1)], ordered[min(len(ordered) - 1, len(ordered) - low)]


def _turns(count: int, names: list[str]) -> Iterator[list[str]]:
    for index in range(count):
        yield names[index % len(names) :] + names[: index % len(names)]


def main() -> int:
    from provenance import provenance

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="python:sesurgery.networks.cifar_resnet:resnet20", metavar="SOURCE:NAME")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--no-results", action="store_true", help="print, and leave the results' file alone")
    given, taken = parser.parse_args(), provenance()
    data = generated(given.batch * given.steps, given.size)
    kinds = {"bare": bare, "timm": of_timm, "ours": ours}

    def one_round(turn: list[str]) -> dict[str, Spent]:
        model = network(given.network, given.size)
        return {name: kinds[name](model, data, given.batch, given.device)() for name in turn}

    one_round(list(kinds))
    rounds = [one_round(turn) for turn in _turns(given.rounds, list(kinds))]
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name in ("timm", "ours"):
        figures[name] = {}
        for kind in ("time", "processor_time"):
            ratios = [getattr(each[name], kind) / getattr(each["bare"], kind) for each in rounds]
            low, high = _interval(ratios)
            figures[name][kind] = {"value": statistics.median(ratios), "low": low, "high": high}
            print(f"{name}: {figures[name][kind]['value']:.3f} times the bare loop's {kind} ({low:.3f} to {high:.3f})")
    images = given.batch * (given.steps - 1)
    rates = {
        kind: images / statistics.median(asdict(each["bare"])[kind] for each in rounds) for kind in asdict(Spent.now())
    }
    print(f"bare: {rates['time']:,.0f} images/s, {rates['processor_time']:,.0f} a second of processor time")
    on = f"{cpu_name()}, {given.device}, threads: {torch.get_num_threads()}"
    print(f"{given.rounds} rounds of {given.steps} steps on {on}")
    if not given.no_results:
        settings = {key: value for key, value in vars(given).items() if key != "no_results"}
        settings |= {"threads": torch.get_num_threads()}
        told = {**taken, "settings": settings, "over_bare": figures, "bare_images_per_second": rates}
        told |= {"rounds": [{name: asdict(spent) for name, spent in each.items()} for each in rounds]}
        write_text(RESULTS, to_json(told))
    return int(figures["ours"]["processor_time"]["low"] > MOST)


if __name__ == "__main__":
    sys.exit(main())
