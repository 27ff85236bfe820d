"""Trials in Optuna's storage: who takes which, what came of it, and what a process that died has left.

Cells wait in Optuna's queue with their parameters fixed, and one process takes each: a queue, and not
BruteForceSampler, by which several processes run some points twice (decision 0032). What is drawn by a sampler takes
the queue too: the first seed of a new cell is drawn, its other seeds and its plain network wait behind it. A process
holds a lock while it runs a trial. One that is free says that the process died: its trial is recorded as failed, and
waits once more. So does, in a database, a trial of another machine that gives no sign of life.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from sesurgery.spec.study import Range, Study
from sesurgery.studies import heartbeat
from sesurgery.studies.answer import Outcome
from sesurgery.studies.cells import Cell, plain_of
from sesurgery.studies.turns import held

LIVE = "live"
DIED = "the process that ran it ended before it was done"
REPEATED = "repeated"
MOST_REPEATS = 50
"""Draws in a row that were there already: the axes hold no further cell."""
KEPT = ("run", "params", "macs", "seconds")
"""What is stored of an outcome beside its score."""
NETWORK, SEED = "network", "seed"
FIXED = "fixed_params"
"""Where Optuna keeps what a trial of its queue was given."""


@dataclass(frozen=True)
class Task:
    """A trial that this process has taken: what it is to run, and Optuna's own object."""

    cell: Cell
    seed: int
    trial: optuna.Trial


@dataclass(frozen=True)
class Storage:
    """A study in Optuna's storage, which may be a database; `folder` is its own on this machine."""

    study: optuna.Study
    asked: Study
    folder: Path
    database: RDBStorage | None = None

    def trials(self) -> list[FrozenTrial]:
        """All trials, with what came of them."""
        found: list[FrozenTrial] = self.study.get_trials(deepcopy=False)
        return found

    def is_whole(self, parameters: Mapping[str, Any]) -> bool:
        """Whether all parameters of a trial are there: the process that takes it writes them one by one."""
        return parameters.keys() >= {NETWORK, SEED} and parameters.keys() >= set(self._axes_of(parameters[NETWORK]))

    def _axes_of(self, network: str) -> list[str]:
        """The axes that a plain network, or one with blocks, has a value of."""
        return [path for path in self.asked.axes if network != "plain" or plain_of(Cell({path: None})).where]

    def cell_of(self, trial: FrozenTrial | optuna.Trial) -> Cell:
        """What a trial is about."""
        return self._cell(trial.params)

    def _cell(self, parameters: Mapping[str, Any]) -> Cell:
        where = {path: _value(parameters[path], axis) for path, axis in self.asked.axes.items() if path in parameters}
        return Cell(where, plain=parameters[NETWORK] == "plain")

    @contextmanager
    def take(self) -> Iterator[Task | None]:
        """The next trial, held while the block runs; None if there is nothing left to begin."""
        with ExitStack() as running:
            with held(self.folder, self.asked):
                self._revive()
                if self.database is not None:
                    heartbeat.give_up_the_dead(self.study)
                task = self._next()
                if task is not None:
                    number = task.trial.number
                    running.enter_context(self._lock(number))
                    if self.database is not None:
                        running.enter_context(heartbeat.beating(self.database, self.study.study_name, number))
            yield task

    def keep(self, task: Task, outcome: Outcome) -> bool:
        """Store what came of a trial that ended well; False if it has been taken for dead, and is another machine's."""
        facts = {key: getattr(outcome, key) for key in KEPT}
        return self._end(task, TrialState.COMPLETE, outcome.top1, facts)

    def fail(self, task: Task, why: str) -> bool:
        """Store why a trial failed; False as in `keep`."""
        return self._end(task, TrialState.FAIL, facts={"reason": why})

    def prune(self, task: Task) -> bool:
        """Store that a trial fell behind; False as in `keep`."""
        return self._end(task, TrialState.PRUNED)

    def again(self, task: Task) -> None:
        """Let a trial that was interrupted wait once more."""
        if self._end(task, TrialState.FAIL):
            self.wait(task.cell, task.seed, after=task.trial.number)

    def _end(
        self, task: Task, state: TrialState, top1: float | None = None, facts: Mapping[str, Any] | None = None
    ) -> bool:
        if not self._is_running(task.trial.number):
            return False
        try:
            for key, fact in (facts or {}).items():
                task.trial.set_user_attr(key, fact)
            self.study.tell(task.trial, top1, state)
        except UpdateFinishedTrialError:
            return False
        return True

    def retry(self) -> int:
        """Let every trial that failed wait once more, unless it has ended well since; how many these are."""
        with held(self.folder, self.asked):
            taken = (each for each in with_parameters(self) if each.user_attrs.get("reason") != REPEATED)
            found = {(self.cell_of(each).key, each.params[SEED]): each for each in taken}
            gone = [each for each in found.values() if each.state == TrialState.FAIL]
            for trial in gone:
                self.wait(self.cell_of(trial), int(trial.params[SEED]), after=trial.number)
        return len(gone)

    def runs_here(self) -> bool:
        """Whether a process of this machine runs a trial now, as far as `take` has looked."""
        running = (trial for trial in self.trials() if trial.state == TrialState.RUNNING)
        return any(self._live(trial.number).exists() for trial in running)

    def _next(self) -> Task | None:
        repeats = 0
        while repeats < MOST_REPEATS:
            waiting = any(trial.state == TrialState.WAITING for trial in self.trials())
            if not waiting:
                if self.asked.search == "grid" or self._is_full():
                    return None
                repeats += 1
                self.study.enqueue_trial({NETWORK: "blocks", SEED: self.asked.seeds[0]})
            task = self._ask()
            if self._is_wanted(task) and (waiting or not self._known(task)):
                if not waiting:
                    for cell in (plain_of(task.cell), task.cell):
                        self._wait_all(cell)
                return task
            task.trial.set_user_attr("reason", REPEATED)
            self.study.tell(task.trial, state=TrialState.FAIL)
        return None

    def _is_full(self) -> bool:
        return len({self.cell_of(trial).key for trial in self._drawn()}) >= self.asked.cells

    def _is_wanted(self, task: Task) -> bool:
        """Whether the queue held this trial, and no earlier one is the same.

        Machines do not see each other's locks: one may empty the queue just before another asks, which Optuna answers
        with a trial of its own, and two that open a study at once may each fill it. The first of two is wanted.
        """
        trials = {trial.number: trial for trial in self.trials()}
        own = trials[task.trial.number]
        if FIXED not in own.system_attrs:
            return False
        if "after" in own.user_attrs or heartbeat.comes_again(own):
            return True
        earlier = (trial for number, trial in trials.items() if number < own.number)
        return not any(self._is_of(trial, task) for trial in earlier)

    def _is_of(self, trial: FrozenTrial, task: Task) -> bool:
        # One that another machine has just taken has no parameters yet, and is known by those that were fixed.
        given = trial.params if self.is_whole(trial.params) else trial.system_attrs.get(FIXED, {})
        if not self.is_whole(given) or trial.user_attrs.get("reason") == REPEATED:
            return False
        return self._cell(given).key == task.cell.key and given[SEED] == task.seed

    def _ask(self) -> Task:
        # By the number of trials, so that processes do not draw alike, and the same study draws the same.
        count = len(self.trials())
        sampler = {
            "bayesian": lambda: optuna.samplers.TPESampler(seed=count, n_startup_trials=5),
            "random": lambda: optuna.samplers.RandomSampler(seed=count),
            "grid": lambda: optuna.samplers.RandomSampler(seed=count),
        }
        self.study.sampler = sampler[self.asked.search]()
        trial = heartbeat.asked(self.study)
        network = trial.suggest_categorical(NETWORK, ["blocks", "plain"])
        # Not a choice among the spec's: a study may get more seeds later, and Optuna's choices cannot.
        seed = trial.suggest_int(SEED, 0, 2**32 - 1)
        for path in self._axes_of(network):
            axis = self.asked.axes[path]
            if isinstance(axis, Range):
                if isinstance(axis.low, int) and isinstance(axis.high, int):
                    trial.suggest_int(path, axis.low, axis.high, log=axis.log)
                else:
                    trial.suggest_float(path, axis.low, axis.high, log=axis.log)
            else:
                trial.suggest_categorical(path, [_choice(value) for value in axis])
        return Task(self.cell_of(trial), int(seed), trial)

    def _drawn(self) -> list[FrozenTrial]:
        return [each for each in with_parameters(self) if not self.cell_of(each).plain]

    def _known(self, task: Task) -> bool:
        others = (trial for trial in self._drawn() if trial.number != task.trial.number)
        return any(self.cell_of(trial).key == task.cell.key for trial in others)

    def _wait_all(self, cell: Cell) -> None:
        for seed in self.asked.seeds:
            self.wait(cell, seed)

    def wait(self, cell: Cell, seed: int, after: int | None = None) -> None:
        """Put a trial into the queue, unless it is there; one that comes `after` another is run although that was."""
        values = {path: _choice(value) for path, value in cell.where.items()}
        fixed = {NETWORK: "plain" if cell.plain else "blocks", SEED: seed, **values}
        attributes = None if after is None else {"after": after}
        self.study.enqueue_trial(fixed, attributes, skip_if_exists=after is None)

    def _revive(self) -> None:
        """What processes of this machine left when they died waits once more."""
        for trial in self.trials():
            if trial.state != TrialState.RUNNING or not (path := self._live(trial.number)).exists():
                continue
            lock = filelock.FileLock(path, timeout=0)
            try:
                lock.acquire()
            except filelock.Timeout:
                continue
            # Whoever ran it told its end before it let the lock go, perhaps since the trials were listed.
            if self._is_running(trial.number):
                self.study.tell(trial.number, state=TrialState.FAIL)
                self.wait(self.cell_of(trial), int(trial.params[SEED]), after=trial.number)
            lock.release()

    def _is_running(self, number: int) -> bool:
        return any(trial.number == number and trial.state == TrialState.RUNNING for trial in self.trials())

    def _live(self, number: int) -> Path:
        return self.folder / LIVE / f"{number}.lock"

    def _lock(self, number: int) -> filelock.BaseFileLock:
        self._live(number).parent.mkdir(exist_ok=True)
        return filelock.FileLock(self._live(number), timeout=0)


def with_parameters(storage: Storage) -> list[FrozenTrial]:
    """The trials that some process has taken, in their order, with all their parameters."""
    return [trial for trial in storage.trials() if storage.is_whole(trial.params)]


def _choice(value: JsonValue) -> Any:
    """A value as Optuna keeps it: a list or a mapping as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _value(kept: Any, axis: tuple[JsonValue, ...] | Range) -> JsonValue:
    return kept if isinstance(axis, Range) else next(value for value in axis if _choice(value) == kept)
