"""Trials of machines that died: given up where a database has signs of life, and only there."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import filelock
import pytest
from fixtures.postgresql import DATABASES
from fixtures.processes import HANGS
from fixtures.studies import outcome, spec_with
from optuna.storages import RDBStorage

from sesurgery.studies import draws, heartbeat, parameters
from sesurgery.studies.opening import opened
from sesurgery.studies.storage import LIVE

databases = pytest.mark.parametrize("storage", DATABASES, indirect=True)


def run_all(storage):
    """Every trial that is there to be taken, as `(cell, seed)`."""
    done = []
    while True:
        with storage.take() as task:
            if task is None:
                return done
            done.append((str(task.cell), task.seed))
            assert storage.keep(task, outcome(task))


def until_taken(storage):
    """The next trial, as soon as there is one to be taken."""
    until = time.monotonic() + HANGS
    while not (done := run_all(storage)):
        assert time.monotonic() < until
        time.sleep(0.1)
    return done


def die(folder, asked):
    with opened("tiny", asked, folder).take():
        os.kill(os.getpid(), signal.SIGKILL)


@databases
def test_the_trial_of_a_machine_that_died_is_taken_by_another_after_a_while_and_not_before(
    tmp_path, storage, monkeypatch
):
    asked = spec_with(storage=storage).study
    machine = multiprocessing.get_context("fork").Process(target=die, args=(tmp_path / "one", asked))
    machine.start()
    machine.join()
    assert machine.exitcode == -signal.SIGKILL
    done = run_all(opened("tiny", asked, tmp_path / "two"))
    assert len(done) == len(set(done)) == 8
    monkeypatch.setattr(heartbeat, "GRACE", 1)
    later = opened("tiny", asked, tmp_path / "two")
    done += until_taken(later)
    assert len(done) == len(set(done)) == 9
    assert [trial.state.name for trial in later.trials()].count("COMPLETE") == 9
    assert run_all(later) == []


def die_while_taking(folder, asked):
    def written(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    parameters.suggest = written
    with opened("tiny", asked, folder).take():
        raise AssertionError("it lives on")


def die_before_it_begins(folder, asked):
    real = filelock.FileLock

    def locked(path, **given):
        if Path(path).parent.name == LIVE:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(path, **given)

    filelock.FileLock = locked
    with opened("tiny", asked, folder).take():
        raise AssertionError("it lives on")


@pytest.mark.parametrize("end", [die_while_taking, die_before_it_begins])
@pytest.mark.parametrize("search", ["grid", "random"])
@pytest.mark.parametrize("storage", [None, *DATABASES], indirect=True)
def test_a_trial_of_a_process_that_died_before_it_had_begun_is_taken_at_once(tmp_path, storage, search, end):
    # A file of a study is one of its folder; a database is looked at from elsewhere, too.
    folders = [tmp_path / "one", tmp_path / ("one" if storage is None else "two")]
    sampled = {} if search == "grid" else {"search": "random", "cells": 2}
    asked = spec_with(storage=storage, seeds=[0, 1], **sampled).study
    machine = multiprocessing.get_context("fork").Process(target=end, args=(folders[0], asked))
    machine.start()
    machine.join()
    assert machine.exitcode == -signal.SIGKILL
    storage = opened("tiny", asked, folders[1])
    (left,) = (trial for trial in storage.trials() if trial.state.name == "RUNNING")
    done = run_all(storage)
    assert len(done) == len(set(done)) == 6
    assert [trial.state.name for trial in storage.trials() if trial.number == left.number] == ["FAIL"]
    if search == "random":
        assert {cell for cell, _ in done if cell != "plain"} == {str(cell) for cell in draws.foreseen(asked)}


@databases
def test_a_machine_gives_signs_of_life_for_as_long_as_it_runs_a_trial(tmp_path, storage, monkeypatch):
    given, real, three = [], RDBStorage.record_heartbeat, threading.Event()

    def record(database, trial):
        real(database, trial)
        given.append(trial)
        if len(given) == 3:
            three.set()

    monkeypatch.setattr(RDBStorage, "record_heartbeat", record)
    monkeypatch.setattr(heartbeat, "BEAT", 1)
    study = opened("tiny", spec_with(storage=storage).study, tmp_path)
    with study.take() as task:
        assert given
        assert three.wait(HANGS)
        study.keep(task, outcome(task))
    assert len(set(given)) == 1
    assert [each.name for each in threading.enumerate() if each.name.startswith("heartbeat")] == []


@databases
def test_what_comes_of_a_trial_that_was_taken_for_dead_is_that_of_the_other_machine(tmp_path, storage, monkeypatch):
    asked = spec_with(storage=storage).study
    monkeypatch.setattr(heartbeat, "GRACE", 1)
    slow, other = (opened("tiny", asked, tmp_path / name) for name in ("one", "two"))
    with slow.take() as first, slow.take() as second, slow.take() as third:
        tasks = [first, second, third]
        done = []
        while len(done) < 9:
            done += until_taken(other)
        assert len(set(done)) == 9
        assert {(str(task.cell), task.seed) for task in tasks} < set(done)
        assert not slow.keep(first, outcome(first))
        assert not slow.fail(second, "the disk is full")
        slow.again(third)
    states = [trial.state.name for trial in slow.trials()]
    assert (states.count("COMPLETE"), states.count("FAIL"), len(states)) == (9, 3, 12)
    assert "the disk is full" not in [trial.user_attrs.get("reason") for trial in slow.trials()]


def test_a_database_that_is_away_for_a_while_ends_no_signs_of_life(tmp_path, monkeypatch):
    beats, enough = [], threading.Event()

    def record(database, trial):
        beats.append(trial)
        if len(beats) == 2:
            raise OSError("the server closed the connection")
        if len(beats) > 2:
            enough.set()

    monkeypatch.setattr(RDBStorage, "record_heartbeat", record)
    monkeypatch.setattr(heartbeat, "BEAT", 1)
    study = opened("tiny", spec_with(storage=f"sqlite:///{tmp_path}/study.db").study, tmp_path)
    with study.take():
        assert enough.wait(HANGS)


def test_a_journal_has_no_signs_of_life(tmp_path):
    assert opened("tiny", spec_with().study, tmp_path).database is None
