"""The verb `study` where processes and machines share a storage: a journal, SQLite, a PostgreSQL server."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from fixtures import processes
from fixtures.postgresql import DATABASES, needs_postgresql
from fixtures.studies import ALONE, outcome, spec_with

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline import Workspace
from sesurgery.studies.opening import opened


def _work(folder, spec):
    """A process that takes trials until none is left, and writes what it took."""
    mine = []
    store = opened(spec.name, spec.study, Path(folder) / "studies" / spec.name)
    while True:
        with store.take() as task:
            if task is None:
                break
            mine.append([str(task.cell), task.seed])
            store.keep(task, outcome(task))
    (Path(folder) / f"{multiprocessing.current_process().pid}.json").write_text(json.dumps(mine))


def _die(folder, spec):
    """A process that is killed while it runs a trial."""
    store = opened(spec.name, spec.study, Path(folder) / "studies" / spec.name)
    with store.take():
        os.kill(os.getpid(), signal.SIGKILL)


def _taken(folder):
    """What all processes took that wrote it below a folder."""
    return [tuple(each) for path in folder.rglob("[0-9]*.json") for each in json.loads(path.read_text())]


@pytest.mark.parametrize("storage", ["journal", *DATABASES], indirect=True)
def test_two_processes_share_the_trials_and_one_that_was_killed_loses_none(tmp_path, ran, storage):
    context, spec = multiprocessing.get_context("fork"), spec_with(storage=storage)
    died = context.Process(target=_die, args=(str(tmp_path), spec))
    died.start()
    died.join()
    workers = [context.Process(target=_work, args=(str(tmp_path), spec)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    taken = _taken(tmp_path)
    assert len(taken) == len(set(taken)) == 9
    alone = pipeline.study(spec_with(), Workspace(tmp_path / "alone"), "tiny.yaml")
    together = pipeline.study_results(spec, Workspace(tmp_path))
    assert together.answer == alone.answer


def _work_elsewhere(folder, spec, begin):
    """The same with a folder of its own, as on another machine: they share the storage and no lock."""
    Path(folder).mkdir(parents=True)
    begin.wait()
    _work(folder, spec)


def _on_machines(folder, spec):
    """What three machines took that began at once."""
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(3)
    folders = [str(folder / f"machine{number}") for number in range(3)]
    machines = [context.Process(target=_work_elsewhere, args=(each, spec, begin)) for each in folders]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join(120)
    assert [machine.exitcode for machine in machines] == [0, 0, 0]
    return _taken(folder)


@pytest.mark.parametrize("storage", DATABASES, indirect=True)
def test_machines_that_share_a_database_and_no_folder_repeat_no_trial(tmp_path, ran, storage):
    spec = spec_with(storage=storage)
    taken = _on_machines(tmp_path / "machines", spec)
    assert len(taken) == len(set(taken)) == 9
    alone = pipeline.study(spec_with(), Workspace(tmp_path / "alone"), "tiny.yaml")
    together = pipeline.study_results(spec, Workspace(tmp_path / "another"))
    assert {row.cell.key: row for row in together.answer.rows} == {row.cell.key: row for row in alone.answer.rows}


@pytest.mark.parametrize("storage", DATABASES, indirect=True)
def test_machines_that_search_at_once_draw_every_cell_once(tmp_path, storage):
    reductions = [2, 4, 8, 16, 32, 64]
    axes = {"surgery[0].insert.reduction": reductions}
    spec = spec_with(storage=storage, axes=axes, search="random", cells=6, seeds=[0])
    taken = _on_machines(tmp_path / "machines", spec)
    assert sorted(taken) == sorted([("plain", 0), *((f"reduction={each}", 0) for each in reductions)])


@pytest.mark.slow
def test_two_processes_on_one_sqlite_storage_train_the_table_of_one(tmp_path, studied):
    given = {**ALONE, "study": {**ALONE["study"], "storage": "sqlite:///study.db"}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(given))
    both = [processes.sesurgery(tmp_path, "study", "tiny.yaml") for _ in range(2)]
    assert [process.end() for process in both] == [0, 0], [process.err for process in both]
    assert sum(process.err.count("trial ") for process in both) == 4
    spec = pipeline.load_spec(studied / "tiny.yaml")
    with contextlib.chdir(tmp_path):
        together = pipeline.study_results(pipeline.load_spec("tiny.yaml"), Workspace())
    assert together.answer == pipeline.study_results(spec, Workspace(studied)).answer


@needs_postgresql
@pytest.mark.slow
def test_two_machines_on_one_postgresql_server_train_the_table_of_one(tmp_path, studied, postgresql):
    given = {**ALONE, "study": {**ALONE["study"], "storage": postgresql()}}
    machines = [tmp_path / f"machine{number}" for number in range(2)]
    for machine in machines:
        machine.mkdir()
        (machine / "tiny.yaml").write_text(yaml.safe_dump(given))
    both = [processes.sesurgery(machine, "study", "tiny.yaml") for machine in machines]
    assert [process.end() for process in both] == [0, 0], [process.err for process in both]
    assert sum(process.err.count("trial ") for process in both) == 4
    runs = [
        path.parent.name for machine in machines for path in machine.glob("studies/tiny/runs/*/weights.safetensors")
    ]
    assert len(runs) == len(set(runs)) == 4
    (tmp_path / "another").mkdir()
    with contextlib.chdir(tmp_path / "another"):
        table = processes.sesurgery(tmp_path / "another", "study", "../machine0/tiny.yaml", "--table")
        assert table.end() == 0, table.err
        together = pipeline.study_results(pipeline.load_spec("../machine0/tiny.yaml"), Workspace()).answer
    alone = pipeline.study_results(pipeline.load_spec(studied / "tiny.yaml"), Workspace(studied)).answer
    # Learning curves are on the machine that trained.
    assert [replace(row, curve=()) for row in alone.rows] == list(together.rows)
    assert (together.advice, together.taken, together.pareto) == (alone.advice, alone.taken, alone.pareto)
    assert together.advice in table.out


def test_postgresql_without_its_driver_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        SesurgeryError, match=r"(?s)SE801.*needs a driver for postgresql: .*psycopg.*sesurgery\[postgresql\]"
    ):
        pipeline.study_results(spec_with(storage="postgresql://nobody@127.0.0.1/study"), Workspace(tmp_path))
