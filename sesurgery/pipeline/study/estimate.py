"""What a study would do, without doing it: its trials, and how long they would take on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline.plan import carry_out, plan
from sesurgery.pipeline.study.study import asked_of
from sesurgery.spec import Spec
from sesurgery.spec.study import Range, Study, Values
from sesurgery.studies.cells import Cell, grid, plain_of, trial_spec
from sesurgery.training.data import data_of

STEPS = 3
FORWARD = 1 / 3
"""Cost of evaluating a sample relative to training on it: there is no backward pass."""


@dataclass(frozen=True)
class TrialEstimate:
    """One cell with one seed. `seconds` is its training time; None if it could not be estimated, with `why`.

    One that is `shared` has no training of its own: an earlier trial's differs only in what enters none.
    """

    cell: Cell
    seed: int
    seconds: float | None
    why: str | None = None
    shared: bool = False


@dataclass(frozen=True)
class StudyEstimate:
    """Every trial of a grid. Of a random or Bayesian search `trials` is empty: which cells come is not known.

    `cells` counts those with blocks, `plain` the plain networks that they are compared with, `count` all trials; of a
    search these are the most that there can be, and the time of each is taken to be that of the spec's plain network.
    """

    trials: tuple[TrialEstimate, ...]
    cells: int
    plain: int
    count: int
    each: float | None = None
    why: str | None = None

    @property
    def seconds(self) -> float | None:
        """Of all trials, one after another; None if no trial could be estimated."""
        if not self.trials:
            return None if self.each is None else self.count * self.each
        own = [trial for trial in self.trials if not trial.shared]
        known = [trial.seconds for trial in own if trial.seconds is not None]
        return sum(known) * len(own) / len(known) if known else None


def estimate(spec: Spec) -> StudyEstimate:
    """The trials of the spec's study: each cell is planned, and a few of its steps are timed. Nothing is written."""
    asked = asked_of(spec)
    if asked.search != "grid":
        return _of_search(spec, asked)
    trials: list[TrialEstimate] = []
    trained: set[str] = set()
    for cell in grid(asked):
        if cell.trained.key in trained:
            trials += [TrialEstimate(cell, seed, 0.0, shared=True) for seed in asked.seeds]
            continue
        trained.add(cell.trained.key)
        seconds, why = _seconds(trial_spec(spec, cell, asked.seeds[0]))
        trials += [TrialEstimate(cell, seed, seconds, why) for seed in asked.seeds]
    plain = len({trial.cell.key for trial in trials if trial.cell.plain})
    cells = len({trial.cell.key for trial in trials}) - plain
    return StudyEstimate(tuple(trials), cells, plain, len(trials))


def _of_search(spec: Spec, asked: Study) -> StudyEstimate:
    cells = int(min(asked.cells, _combinations(asked.axes)))
    outside = plain_of(Cell(dict.fromkeys(asked.axes))).where
    plain = int(min(cells, _combinations({path: asked.axes[path] for path in outside})))
    each, why = _seconds(trial_spec(spec, Cell({}, plain=True), asked.seeds[0]))
    return StudyEstimate((), cells, plain, (cells + plain) * len(asked.seeds), each, why)


def _combinations(axes: Mapping[str, Values | Range]) -> float:
    """How many cells the axes hold; a range holds any number."""
    return math.prod(math.inf if isinstance(axis, Range) else len(axis) for axis in axes.values())


def _seconds(spec: Spec) -> tuple[float | None, str | None]:
    try:
        planned, data = plan(spec), data_of(spec)
        with torch.random.fork_rng(devices=[]):
            network = carry_out(planned)[1].module
        if network is None:
            return None, "a network in an ONNX file is not trained"
        batch = spec.train.batch_size
        step = _step(network, (batch, *spec.input.shape))
    except (SesurgeryError, RuntimeError) as error:
        told = error.diagnostics[0].message if isinstance(error, SesurgeryError) else str(error)
        return None, told
    samples = len(data.train.labels) + FORWARD * len(data.held_out.labels)
    return spec.train.epochs * step * math.ceil(samples / batch), None


def _step(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Seconds of a forward and a backward pass; the first is not counted."""
    network.train()
    images = torch.zeros(shape)
    fastest = math.inf
    for _ in range(STEPS):
        started = time.perf_counter()
        network(images).sum().backward()
        fastest = min(fastest, time.perf_counter() - started)
    return fastest
