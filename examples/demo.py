"""What `make demo` runs: SE trained on real data beside its plain twin, engines of it verified, and what SE costs.

Accuracy is that of specs/digits.yaml, trained here with blocks and without, from the same seeds. Time is that of
specs/seresnet50.yaml, whose weights are not trained: a network's latency does not depend on them, and on a network of
the digits' size it would be the time of starting kernels.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
import yaml
from numpy.typing import NDArray
from torch import nn

from sesurgery import pipeline
from sesurgery.artifacts import cpu_name
from sesurgery.cli.console import talking
from sesurgery.cli.exits import guarded
from sesurgery.diagnostics import CheckFailed, Diagnostic
from sesurgery.networks import checkpoint
from sesurgery.pipeline import BenchRequest, EnginesRequest
from sesurgery.pipeline.data import data_of
from sesurgery.pipeline.specs import backend_of
from sesurgery.pipeline.talk import Talk
from sesurgery.reports import verdict
from sesurgery.spec import Spec
from sesurgery.training.data.base import Split
from sesurgery.training.evaluation import split_logits
from sesurgery.training.loop import fit
from sesurgery.verification.paired import gain

Right = NDArray[np.bool_]


def right(network: nn.Module, samples: Split) -> Right:
    """Which of the samples a network answers right."""
    answers = split_logits(network, samples)
    correct: Right = (answers.argmax(1) == samples.labels).numpy()
    return correct


def train_both(spec: Spec, origin: str, talk: Talk) -> tuple[Path, Right, Right]:
    """A trained run, and the right answers of its network and of the plain one, trained alike from the same values."""
    applied = pipeline.apply(spec, pipeline.Workspace(), origin)
    talk.say(f"{applied.planned.summary()} -> {applied.folder.as_posix()}")
    trained = pipeline.train(applied.folder, talk=talk).result
    plain, data = applied.planned.network.module, data_of(spec)
    assert isinstance(plain, nn.Module)
    twin = fit(plain, data, spec.train, applied.folder / "plain", heartbeat=talk.progress)
    if trained.interrupted or twin.interrupted:
        raise KeyboardInterrupt
    talk.say(f"without SE, from the same values: held-out top-1 {twin.top1 or 0:.2%}")
    changed = checkpoint.read(applied.folder, pipeline.catalogs()).network
    return applied.folder, right(changed, data.held_out), right(plain, data.held_out)


def learn(path: Path, seeds: int, talk: Talk) -> tuple[Path, verdict.Learned]:
    """The run of the spec's own seed, and what SE brought over the seeds."""
    spec, text = pipeline.load_spec(path), yaml.safe_load(path.read_text())
    others = [
        pipeline.load_spec({**text, "name": f"{spec.name}-seed{seed}", "train": {**text["train"], "seed": seed}})
        for seed in range(spec.train.seed + 1, spec.train.seed + seeds)
    ]
    found = [train_both(each, path.as_posix(), talk) for each in (spec, *others)]
    ours, theirs = (np.stack([row[column] for row in found]) for column in (1, 2))
    what = f"{spec.model.name.rpartition(':')[2]} on {spec.train.data.name}"
    return found[0][0], verdict.Learned(what, float(ours.mean()), float(theirs.mean()), gain(ours, theirs))


def verify(run: Path, spec: Spec, talk: Talk) -> list[Diagnostic]:
    """Build the engines of the spec and compare each with the trained network; what falls short."""
    failures: list[Diagnostic] = []
    for wanted in spec.engines:
        if (why := wanted.backend.options.probe().builds) is not None:
            talk.say(f"{wanted.backend.name} {wanted.precision} was not built: {why}")
            continue
        for built in pipeline.build_engines(EnginesRequest(run, pipeline.Workspace(), (wanted,), talk=talk)):
            if (why := backend_of(built.manifest).probe().runs) is not None:
                talk.say(f"{built.path.name} was built, and cannot run here: {why}")
                continue
            verified = pipeline.verify(built.path)
            worst = min(entry.report.agreement for entry in verified.section.parity)
            talk.say(f"{built.path.name}: the network's answer on {worst:.1%} of the held-out samples")
            failures += verified.failures
    return failures


def price(path: Path, talk: Talk) -> tuple[str, list[verdict.Price]]:
    """What SE costs in each engine of a spec, untrained; and of what network, size and machine that is said."""
    spec, workspace = pipeline.load_spec(path), pipeline.Workspace()
    run = pipeline.apply(spec, workspace, path.as_posix()).folder
    prices = []
    for wanted in spec.engines:
        ability, name = wanted.backend.options.probe(), f"{wanted.backend.name} {wanted.precision}"
        if (why := ability.builds or ability.runs) is not None:
            talk.say(f"{name} is left out: {why}")
            continue
        (built,) = pipeline.build_engines(EnginesRequest(run, workspace, (wanted,), talk=talk))
        talk.say(f"timing {built.path.name}: as exported, lowered, and without SE")
        prices.append(
            verdict.price(name, pipeline.bench(BenchRequest(built.path, workspace, talk=talk)).section.report)
        )
    height, width = spec.input.shape[1:]
    return f"{spec.name} at {height} x {width}, batch {spec.latency.batch}, on {cpu_name()}", prices


@click.command()
@click.option("--small", default="specs/digits.yaml", type=click.Path(path_type=Path), help="What is trained.")
@click.option("--large", default="specs/seresnet50.yaml", type=click.Path(path_type=Path), help="What is timed.")
@click.option("--seeds", default=2, type=click.IntRange(min=1), help="How often both networks are trained.")
def main(small: Path, large: Path, seeds: int) -> None:
    """Train with SE and without, verify engines, time SE in a large network, and say what came of it."""
    started = time.perf_counter()
    with talking() as talk:
        run, learned = learn(small, seeds, talk)
        failures = verify(run, pipeline.load_spec(small), talk)
        report = pipeline.write_report(run, pipeline.Workspace()).html
        where, prices = price(large, talk)
    click.echo("")
    click.echo(verdict.to_text(learned, where, prices, failures))
    click.echo(f"the report, for a browser: {report.as_posix()}  ({time.perf_counter() - started:.0f} s in all)")
    if failures:
        raise CheckFailed(failures)


if __name__ == "__main__":
    guarded(main)
