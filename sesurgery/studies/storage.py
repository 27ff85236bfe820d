"""Trials in Optuna's storage: who takes which, what came of it, and what a process that died has left.

Cells wait in Optuna's queue with their parameters fixed, and one process takes each: a queue, and not
BruteForceSampler, by which several processes run some points twice (decision 0032). What is drawn by a sampler takes
the queue too: the first seed of a new cell is drawn, its other seeds and its plain network wait behind it. A process
holds a lock while it runs a trial. One that is free says that the process died: its trial is recorded as failed, and
waits once more. So does, in a database, a trial of another machine that gives no sign of life, and anywhere one whose
process died before it had begun: whoever takes a trial begins it before another may look.
"""

from __future__ import annotations

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

from sesurgery.spec.study import Study
from sesurgery.studies import draws, heartbeat, parameters
from sesurgery.studies.answer import Outcome
from sesurgery.studies.cells import Cell, plain_of
from sesurgery.studies.parameters import BLOCKS, NETWORK, PLAIN, SEED
from sesurgery.studies.turns import held, is_exclusive

LIVE = "live"
DIED = "the process that ran it ended before it was done"
REPEATED = "repeated"
BEGUN = "begun"
"""Holds the number of a trial once its lock is there, and in a database its first sign of life."""
KEPT = ("run", "params", "macs", "seconds")
"""What is stored of an outcome beside its score."""
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

    def cell_of(self, trial: FrozenTrial | optuna.Trial) -> Cell:
        """What a trial is about."""
        return parameters.cell(trial.params, self.asked.axes)

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
                    task.trial.set_user_attr(BEGUN, number)
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
        while repeats < draws.MOST_REPEATS:
            if not any(trial.state == TrialState.WAITING for trial in self.trials()):
                if self.asked.search == "grid" or self._is_full():
                    return None
                self.study.enqueue_trial({NETWORK: BLOCKS, SEED: self.asked.seeds[0]})
            task = self._ask()
            drawn = self._is_draw(self._stored(task))
            if self._is_wanted(task) and not (drawn and self._known(task)):
                if drawn:
                    self._wait_all(task.cell)
                return task
            repeats += drawn
            task.trial.set_user_attr("reason", REPEATED)
            self.study.tell(task.trial, state=TrialState.FAIL)
        return None

    def _stored(self, task: Task) -> FrozenTrial:
        return next(trial for trial in self.trials() if trial.number == task.trial.number)

    def _is_draw(self, trial: FrozenTrial) -> bool:
        """Whether a trial's cell was left to the sampler; those that come again, and other seeds, have it fixed."""
        fixed = trial.system_attrs.get(FIXED, {})
        left = fixed.keys() == {NETWORK, SEED} and fixed[NETWORK] == BLOCKS
        return left and self.asked.search != "grid" and not heartbeat.comes_again(trial)

    def _is_full(self) -> bool:
        return len({self.cell_of(trial).key for trial in self._drawn()}) >= self.asked.cells

    def _is_wanted(self, task: Task) -> bool:
        """Whether the queue held this trial, and no earlier one is the same.

        Machines do not see each other's locks: one may empty the queue just before another asks, which Optuna answers
        with a trial of its own, and two that open a study at once may each fill it. The first of two is wanted.
        """
        own = self._stored(task)
        if FIXED not in own.system_attrs:
            return False
        if "after" in own.user_attrs or heartbeat.comes_again(own):
            return True
        earlier = (trial for trial in self.trials() if trial.number < own.number)
        return not any(self._is_of(trial, task) for trial in earlier)

    def _is_of(self, trial: FrozenTrial, task: Task) -> bool:
        # One that another machine has just taken has no parameters yet, and is known by those that were fixed.
        axes, fixed = self.asked.axes, trial.system_attrs.get(FIXED, {})
        given = trial.params if parameters.is_whole(trial.params, axes) else fixed
        if not parameters.is_whole(given, axes) or trial.user_attrs.get("reason") == REPEATED:
            return False
        return parameters.cell(given, axes).key == task.cell.key and given[SEED] == task.seed

    def _ask(self) -> Task:
        # By the number of the draw, so that no two draw alike, and the same study draws the same.
        drawn = sum(self._is_draw(trial) and not self._is_cut_off(trial) for trial in self.trials())
        self.study.sampler = draws.sampler(self.asked.search, drawn)
        trial = heartbeat.asked(self.study)
        network = trial.suggest_categorical(NETWORK, [BLOCKS, PLAIN])
        # Not a choice among the spec's: a study may get more seeds later, and Optuna's choices cannot.
        seed = trial.suggest_int(SEED, 0, 2**32 - 1)
        parameters.suggest(trial, network, self.asked.axes)
        return Task(self.cell_of(trial), int(seed), trial)

    def _drawn(self) -> list[FrozenTrial]:
        return [each for each in with_parameters(self) if not self.cell_of(each).plain]

    def _known(self, task: Task) -> bool:
        others = (trial for trial in self._drawn() if trial.number != task.trial.number)
        return any(self.cell_of(trial).key == task.cell.key for trial in others)

    def _wait_all(self, drawn: Cell) -> None:
        """Let every seed of a cell and of its plain network wait."""
        for cell in (plain_of(drawn), drawn):
            for seed in self.asked.seeds:
                self.wait(cell, seed)

    def wait(self, cell: Cell, seed: int, after: int | None = None) -> None:
        """Put a trial into the queue, unless it is there; one that comes `after` another is run although that was."""
        attributes = None if after is None else {"after": after}
        self.study.enqueue_trial(parameters.parameters_of(cell, seed), attributes, skip_if_exists=after is None)

    def _revive(self) -> None:
        """What processes of this machine left when they died waits once more."""
        for trial in self.trials():
            if trial.state != TrialState.RUNNING:
                continue
            if not (path := self._live(trial.number)).exists():
                if is_exclusive(self.asked.storage) and trial.user_attrs.get(BEGUN) != trial.number:
                    self._give_back(trial)
                continue
            lock = filelock.FileLock(path, timeout=0)
            try:
                lock.acquire()
            except filelock.Timeout:
                continue
            # Whoever ran it told its end before it let the lock go, perhaps since the trials were listed.
            if self._is_running(trial.number):
                self._give_back(trial)
            lock.release()

    def _give_back(self, trial: FrozenTrial) -> None:
        """Fail a trial that nobody runs any more, and let it wait once more; one that was cut off is drawn again."""
        self.study.tell(trial.number, state=TrialState.FAIL)
        known = {**trial.system_attrs.get(FIXED, {}), **trial.params}
        if not parameters.is_whole(known, self.asked.axes):
            return
        cell = parameters.cell(known, self.asked.axes)
        self.wait(cell, int(known[SEED]), after=trial.number)
        if self._is_draw(trial):
            self._wait_all(cell)

    def _is_cut_off(self, trial: FrozenTrial) -> bool:
        """Whether the process that took a trial ended before it had written all of its parameters."""
        return trial.state == TrialState.FAIL and not parameters.is_whole(trial.params, self.asked.axes)

    def _is_running(self, number: int) -> bool:
        return any(trial.number == number and trial.state == TrialState.RUNNING for trial in self.trials())

    def _live(self, number: int) -> Path:
        return self.folder / LIVE / f"{number}.lock"

    def _lock(self, number: int) -> filelock.BaseFileLock:
        self._live(number).parent.mkdir(exist_ok=True)
        return filelock.FileLock(self._live(number), timeout=0)


def with_parameters(storage: Storage) -> list[FrozenTrial]:
    """The trials that some process has taken, in their order, with all their parameters."""
    return [trial for trial in storage.trials() if parameters.is_whole(trial.params, storage.asked.axes)]
