"""The verb `demo`: SE trained on real data beside its plain twin, engines of it verified, and what SE costs.

Accuracy is that of the small spec (`demo:digits`), trained with blocks and without, from the same seeds. Time is that
of the large one (`demo:seresnet50`), whose weights are not trained: a network's latency does not depend on them, and on
a network of the digits' size it would be the time of starting kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from torch import nn

from sesurgery.artifacts import cpu_name
from sesurgery.diagnostics import Diagnostic
from sesurgery.networks import checkpoint
from sesurgery.pipeline.apply import NO_RUN, apply
from sesurgery.pipeline.bench.bench import bench
from sesurgery.pipeline.bench.request import BenchRequest
from sesurgery.pipeline.build_engine.build_engine import EnginesRequest, build_engines
from sesurgery.pipeline.report import write_report
from sesurgery.pipeline.specs import backend_of, catalogs, load_spec
from sesurgery.pipeline.train import TrainRequest, train
from sesurgery.pipeline.verify.verify import verify
from sesurgery.reports.text import verdict
from sesurgery.spec import Spec
from sesurgery.talk import Talk
from sesurgery.training.data import data_of
from sesurgery.training.data.base import Split
from sesurgery.training.evaluation import BATCH, logits
from sesurgery.training.loop import FitRequest, FitResult, fit
from sesurgery.verification.paired import gain
from sesurgery.workspace.folders import Workspace

Right = NDArray[np.bool_]


class DemoStopped(Exception):  # noqa: N818  (a request that was met)
    """A signal arrived during training; the run can be resumed."""

    def __init__(self, number: int, run: Path) -> None:
        super().__init__(f"signal {number}")
        self.number, self.run = number, run


@dataclass(frozen=True)
class DemoRequest:
    """What is trained, what is timed, and how often both networks are trained."""

    small: Path
    large: Path
    seeds: int
    workspace: Workspace
    talk: Talk


@dataclass(frozen=True)
class DemoResult:
    """What the blocks brought and what they cost, what fell short, and the report of the first run."""

    learned: verdict.Learned
    where: str
    prices: tuple[verdict.Price, ...]
    failures: tuple[Diagnostic, ...]
    report: Path


def demo(request: DemoRequest) -> DemoResult:
    """Train with SE and without, verify engines, time SE in a large network. Raises DemoStopped."""
    run, learned = _learn(request)
    failures = _verify(run, load_spec(request.small), request)
    report = write_report(run, request.workspace).html
    where, prices = _price(request)
    return DemoResult(learned, where, tuple(prices), tuple(failures), report)


def _right(network: nn.Module, samples: Split) -> Right:
    """Which of the samples a network answers right."""
    answers = logits(network, (images for images, _ in samples.batches(BATCH)))
    correct: Right = (answers.argmax(1) == samples.labels).numpy()
    return correct


def _train_both(spec: Spec, request: DemoRequest) -> tuple[Path, Right, Right]:
    """A trained run, and the right answers of its network and of the plain one, trained alike from the same values."""
    talk = request.talk
    applied = apply(spec, request.workspace, request.small.as_posix())
    talk.say(f"{applied.planned.summary()} -> {applied.folder.as_posix()}")
    _unstopped(train(TrainRequest(applied.folder, talk=talk)).result, applied.folder)
    plain, data = applied.planned.network.require_module(*NO_RUN), data_of(spec)
    twin = fit(FitRequest(plain, data, spec.train, applied.folder / "plain", heartbeat=talk.progress))
    _unstopped(twin, applied.folder)
    talk.say(f"without SE, from the same values: held-out top-1 {twin.top1 or 0:.2%}")
    changed = checkpoint.read(applied.folder, catalogs()).network
    return applied.folder, _right(changed, data.held_out), _right(plain, data.held_out)


def _unstopped(training: FitResult, run: Path) -> None:
    if training.signal is not None:
        raise DemoStopped(training.signal, run)


def _learn(request: DemoRequest) -> tuple[Path, verdict.Learned]:
    """The run of the spec's own seed, and what SE brought over the seeds."""
    spec, text = load_spec(request.small), yaml.safe_load(request.small.read_text())
    others = [
        load_spec({**text, "name": f"{spec.name}-seed{seed}", "train": {**text["train"], "seed": seed}})
        for seed in range(spec.train.seed + 1, spec.train.seed + request.seeds)
    ]
    found = [_train_both(each, request) for each in (spec, *others)]
    ours, theirs = np.stack([row[1] for row in found]), np.stack([row[2] for row in found])
    what = f"{spec.model.name.rpartition(':')[2]} on {spec.train.data.name}"
    return found[0][0], verdict.Learned(what, float(ours.mean()), float(theirs.mean()), gain(ours, theirs))


def _verify(run: Path, spec: Spec, request: DemoRequest) -> list[Diagnostic]:
    """Build the engines of the spec and compare each with the trained network; what falls short."""
    failures: list[Diagnostic] = []
    talk = request.talk
    for wanted in spec.engines:
        if (why := wanted.backend.options.probe().builds) is not None:
            talk.say(f"{wanted.backend.name} {wanted.precision} was not built: {why}")
            continue
        for built in build_engines(EnginesRequest(run, request.workspace, (wanted,), talk=talk)):
            if (why := backend_of(built.manifest).probe().runs) is not None:
                talk.say(f"{built.path.name} was built, and cannot run here: {why}")
                continue
            verified = verify(built.path)
            worst = min(entry.report.agreement for entry in verified.section.parity)
            talk.say(f"{built.path.name}: the network's answer on {worst:.1%} of the held-out samples")
            failures += verified.failures
    return failures


def _price(request: DemoRequest) -> tuple[str, list[verdict.Price]]:
    """What SE costs in each engine of the large spec, untrained; and of what network, size and machine that is said."""
    spec, workspace, talk = load_spec(request.large), request.workspace, request.talk
    run = apply(spec, workspace, request.large.as_posix()).folder
    prices = []
    for wanted in spec.engines:
        ability, name = wanted.backend.options.probe(), f"{wanted.backend.name} {wanted.precision}"
        if (why := ability.builds or ability.runs) is not None:
            talk.say(f"{name} is left out: {why}")
            continue
        (built,) = build_engines(EnginesRequest(run, workspace, (wanted,), talk=talk))
        talk.say(f"timing {built.path.name}: as exported, lowered, and without SE")
        prices.append(verdict.price(name, bench(BenchRequest(built.path, workspace, talk=talk)).section.report))
    height, width = spec.input.shape[1:]
    return f"{spec.name} at {height} x {width}, batch {spec.latency.batch}, on {cpu_name()}", prices
