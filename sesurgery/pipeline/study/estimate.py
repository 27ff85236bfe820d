"""What a study would do, without doing it: its trials, and how long they would take on this machine.

Each cell's training is begun, and goes on for a few batches. Of the engines, the plain networks' are built, of
untrained weights: those with blocks are taken to cost as much. What that writes is temporary.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline.plan import carry_out, plan
from sesurgery.pipeline.study.study import asked_of
from sesurgery.pipeline.study.timed_engine import EngineTime, engine_time, race_seconds
from sesurgery.pipeline.study.timed_training import training_seconds
from sesurgery.pipeline.train import block_paths
from sesurgery.spec import Spec
from sesurgery.spec.study import Range, Study, Values
from sesurgery.studies.cells import Cell, grid, plain_of, trial_spec, with_plain
from sesurgery.studies.draws import foreseen
from sesurgery.training.data import data_of

Known = tuple[float | None, str | None]
"""Seconds, or None and why they are not known."""
NOTHING: Known = (0.0, None)


@dataclass(frozen=True)
class TrialEstimate:
    """One cell with one seed. `seconds` is what it takes, from applying to its score; None if not known, with `why`.

    One that is `shared` has no training of its own, and at most an engine to build and to score: an earlier trial's
    training differs only in what enters none.
    """

    cell: Cell
    seed: int
    seconds: float | None
    why: str | None = None
    shared: bool = False


@dataclass(frozen=True)
class StudyEstimate:
    """Every trial of a grid or a random search; of a Bayesian one those that it begins with.

    `cells` counts those with blocks, `plain` the plain networks that they are compared with, `count` all trials. Where
    `unknown` cells depend on what comes of others, these are the most that there can be. The time of each training of a
    `search` is taken to be that of the spec's plain network; `why` says why that is not known.
    `race` is how long the engines that are built for it and the race at the end take; None where there is none, or it
    is not known, with `why_race`.
    """

    trials: tuple[TrialEstimate, ...]
    cells: int
    plain: int
    count: int
    search: bool = False
    unknown: int = 0
    why: str | None = None
    race: float | None = None
    why_race: str | None = None

    @property
    def seconds(self) -> float | None:
        """Of all trials, one after another, and the race; None if no trial could be estimated."""
        own = [trial for trial in self.trials if not trial.shared]
        known = [trial.seconds for trial in own if trial.seconds is not None]
        if not known:
            return None
        shared = sum(trial.seconds or 0.0 for trial in self.trials if trial.shared)
        trained = len(own) + self.count - len(self.trials)
        return sum(known) * trained / len(known) + shared + (self.race or 0.0)


@dataclass
class _Engines:
    """The engines of a study's plain networks, each built and timed once, when it is first asked for."""

    spec: Spec
    seed: int
    known: dict[str, EngineTime | str] = field(default_factory=dict)

    def of(self, cell: Cell) -> EngineTime | str:
        """The times of a cell's engine, taken to be those of its plain network's; or why they are not known."""
        if cell.group not in self.known:
            try:
                made = engine_time(trial_spec(self.spec, plain_of(cell), self.seed), cell.engine)
                self.known[cell.group] = made
            except (SesurgeryError, RuntimeError) as error:
                self.known[cell.group] = _told(error)
        return self.known[cell.group]

    def scored(self, cell: Cell) -> float:
        """Seconds to build and to score the engine of a trial; 0 where the trial has none."""
        found = self.of(cell) if cell.deployed else ""
        return 0.0 if isinstance(found, str) else found.build + found.score

    def race(self, cells: Sequence[Cell]) -> Known:
        """Seconds of the race of these cells and of the engines that are built for it alone."""
        found = [(cell, self.of(cell)) for cell in cells]
        if missing := next((made for _, made in found if isinstance(made, str)), None):
            return None, missing
        engines = [made for _, made in found if isinstance(made, EngineTime)]
        built = sum(made.build for cell, made in found if isinstance(made, EngineTime) and not cell.deployed)
        return built + race_seconds(engines, self.spec.latency), None


def estimate(spec: Spec) -> StudyEstimate:
    """The trials of the spec's study: each cell is planned, and its training, engine and race are timed in part."""
    asked = asked_of(spec)
    with contextlib.suppress(SesurgeryError, RuntimeError):
        # A study imports once what is imported at its first use: it is not to be counted in every trial.
        data_of(spec)
        plan(spec)
    engines = _Engines(spec, asked.seeds[0])
    if asked.search != "grid":
        return _of_search(spec, asked, engines)
    trials: list[TrialEstimate] = []
    trained: set[str] = set()
    cells = grid(asked)
    for cell in cells:
        if shared := cell.trained.key in trained:
            seconds, why = NOTHING
        else:
            trained.add(cell.trained.key)
            seconds, why = _seconds(trial_spec(spec, cell, asked.seeds[0]))
        if seconds is not None:
            seconds += engines.scored(cell)
        trials += [TrialEstimate(cell, seed, seconds, why, shared) for seed in asked.seeds]
    plain = sum(cell.plain for cell in cells)
    known = any(trial.seconds is not None for trial in trials)
    race, why_race = engines.race(cells) if asked.latency and known else (None, None)
    return StudyEstimate(tuple(trials), len(cells) - plain, plain, len(trials), race=race, why_race=why_race)


def _of_search(spec: Spec, asked: Study, engines: _Engines) -> StudyEstimate:
    first = Cell({}, plain=True)
    each, why = _seconds(trial_spec(spec, first, asked.seeds[0]))
    known = foreseen(asked)
    listed = tuple(with_plain(known))
    trials: list[TrialEstimate] = []
    trained: set[str] = set()
    for cell in listed:
        shared = cell.trained.key in trained
        trained.add(cell.trained.key)
        trials += [TrialEstimate(cell, seed, 0.0 if shared else each, why, shared) for seed in asked.seeds]
    cells, plain, unknown = len(known), len(listed) - len(known), 0
    if asked.search == "bayesian":
        unknown = int(min(asked.cells, _combinations(asked.axes))) - cells
    if unknown:
        cells += unknown
        outside = plain_of(Cell(dict.fromkeys(asked.axes))).where
        plain = int(min(cells, _combinations({path: asked.axes[path] for path in outside})))
    raced = asked.latency and each is not None
    race, why_race = engines.race([first] * (cells + plain)) if raced else (None, None)
    count = (cells + plain) * len(asked.seeds)
    return StudyEstimate(tuple(trials), cells, plain, count, True, unknown, why, race, why_race)


def _combinations(axes: Mapping[str, Values | Range]) -> float:
    """How many cells the axes hold; a range holds any number."""
    return math.prod(math.inf if isinstance(axis, Range) else len(axis) for axis in axes.values())


def _seconds(spec: Spec) -> Known:
    """Seconds of a trial without its engine, or why they are not known."""
    try:
        begun = time.perf_counter()
        planned, data = plan(spec), data_of(spec)
        with torch.random.fork_rng(devices=[]):
            planned, changed = carry_out(planned)
        network = changed.require_module("a network in an ONNX file is not trained", "name the model it came from")
        # Once to apply it, and once to open the run for its training.
        opening = 2 * (time.perf_counter() - begun)
        blocks = block_paths(spec, planned.plan)
        return opening + training_seconds(network, data, spec.train, blocks), None
    except (SesurgeryError, RuntimeError) as error:
        return None, _told(error)


def _told(error: SesurgeryError | RuntimeError) -> str:
    return error.diagnostics[0].message if isinstance(error, SesurgeryError) else str(error)
