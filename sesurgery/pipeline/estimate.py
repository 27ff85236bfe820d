"""What a study would do, without doing it: its trials, and how long they would take on this machine."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline.data import data_of
from sesurgery.pipeline.plan import plan
from sesurgery.pipeline.study import asked_of
from sesurgery.spec import Spec
from sesurgery.studies.cells import Cell, grid, trial_spec

STEPS = 3
FORWARD = 1 / 3
"""Cost of evaluating a sample relative to training on it: there is no backward pass."""


@dataclass(frozen=True)
class TrialEstimate:
    """One cell with one seed. `seconds` is its training time; None if it could not be estimated, with `why`."""

    cell: Cell
    seed: int
    seconds: float | None
    why: str | None = None


@dataclass(frozen=True)
class StudyEstimate:
    """Every trial of a grid. Of a random or Bayesian search `trials` is empty: which cells come is not known."""

    trials: tuple[TrialEstimate, ...]
    count: int

    @property
    def seconds(self) -> float | None:
        """Of all trials, one after another; None if no trial could be estimated."""
        known = [trial.seconds for trial in self.trials if trial.seconds is not None]
        return sum(known) * len(self.trials) / len(known) if known else None


def estimate(spec: Spec) -> StudyEstimate:
    """The trials of the spec's study: each cell is planned, and a few of its steps are timed. Nothing is written."""
    asked = asked_of(spec)
    if asked.search != "grid":
        return StudyEstimate((), (asked.cells + 1) * len(asked.seeds))
    trials: list[TrialEstimate] = []
    for cell in grid(asked):
        seconds, why = _seconds(trial_spec(spec, cell, asked.seeds[0]))
        trials += [TrialEstimate(cell, seed, seconds, why) for seed in asked.seeds]
    return StudyEstimate(tuple(trials), len(trials))


def _seconds(spec: Spec) -> tuple[float | None, str | None]:
    try:
        planned, data = plan(spec), data_of(spec)
        with torch.random.fork_rng(devices=[]):
            network = planned.network.apply(planned.plan).module
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
