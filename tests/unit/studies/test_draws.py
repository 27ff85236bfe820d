"""What a search draws, and what of it is known before anything is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.studies import outcome, spec_with

from sesurgery.spec.study import Study
from sesurgery.studies.cells import Cell
from sesurgery.studies.draws import foreseen
from sesurgery.studies.opening import opened
from sesurgery.studies.parameters import BLOCKS, NETWORK, SEED
from sesurgery.studies.storage import Storage, Task, with_parameters

LR = "train.optimizer.lr"
AXES = {"surgery[0].insert.reduction": [2, 4, 8], LR: {"low": 0.01, "high": 0.1, "log": True}}


def searching(search: str, **study: object) -> Study:
    asked = spec_with(**{"axes": AXES, "search": search, "cells": 6, "seeds": [0, 1], **study}).study
    assert asked is not None
    return asked


def tasks(storage: Storage) -> Iterator[Task]:
    """Every trial that there is to be taken."""
    while True:
        with storage.take() as task:
            if task is None:
                return
            yield task


def drawn(storage: Storage) -> tuple[Cell, ...]:
    """The cells with blocks, in the order in which they came."""
    cells = (storage.cell_of(trial) for trial in with_parameters(storage))
    return tuple({cell.key: cell for cell in cells if not cell.plain}.values())


def test_a_random_search_draws_the_cells_that_were_foreseen_whatever_comes_of_its_trials(tmp_path: Path) -> None:
    asked = searching("random")
    storage = opened("tiny", asked, tmp_path)
    for count, task in enumerate(tasks(storage)):
        if count % 3 == 1:
            storage.fail(task, "the data is gone")
        elif count % 5 == 2:
            storage.again(task)
        else:
            storage.keep(task, outcome(task))
    assert len(foreseen(asked)) == 6
    assert drawn(storage) == foreseen(asked)


def test_no_more_cells_are_foreseen_than_the_axes_hold(tmp_path: Path) -> None:
    asked = searching("random", axes={"surgery[0].insert.reduction": [2, 4]})
    storage = opened("tiny", asked, tmp_path)
    for task in tasks(storage):
        storage.keep(task, outcome(task))
    assert len(foreseen(asked)) == 2
    assert drawn(storage) == foreseen(asked)


def found_by(asked: Study, folder: Path, score: Callable[[float], float]) -> tuple[Cell, ...]:
    storage = opened("tiny", asked, folder)
    for task in tasks(storage):
        storage.keep(task, replace(outcome(task), top1=score(float(str(task.cell.where[LR])))))
    return drawn(storage)


@pytest.mark.parametrize(("seeds", "known"), [([0], 3), ([0, 1], 2), ([0, 1, 2], 1)])
def test_a_bayesian_search_begins_with_the_cells_that_were_foreseen_and_goes_on_by_results(
    tmp_path: Path, seeds: list[int], known: int
) -> None:
    asked = searching("bayesian", seeds=seeds)
    high, low = (
        found_by(asked, tmp_path / name, score) for name, score in (("high", float), ("low", lambda lr: 1 - lr))
    )
    assert foreseen(asked) == high[:known] == low[:known]
    assert len(high) == len(low) == 6
    assert high[known:] != low[known:]


def test_a_draw_that_waited_when_its_process_died_gets_all_seeds_and_a_plain_network(tmp_path: Path) -> None:
    asked = searching("random", cells=1)
    storage = opened("tiny", asked, tmp_path)
    storage.study.enqueue_trial({NETWORK: BLOCKS, SEED: 0})
    done = []
    for task in tasks(storage):
        storage.keep(task, outcome(task))
        done.append((task.cell.plain, task.seed))
    assert sorted(done) == [(False, 0), (False, 1), (True, 0), (True, 1)]
    assert drawn(storage) == foreseen(asked)
