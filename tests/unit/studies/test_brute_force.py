"""Why grids wait in a queue: what BruteForceSampler draws where several processes ask, and what the queue hands out."""

from __future__ import annotations

import optuna
import pytest
from fixtures.studies import spec_with

from sesurgery.studies.opening import opened


def test_brute_force_draws_a_point_that_another_worker_is_running_once_none_is_left():
    study = optuna.create_study(sampler=optuna.samplers.BruteForceSampler())
    # Three workers on two points, of whom none has ended.
    drawn = [study.ask().suggest_categorical("reduction", [2, 4]) for _ in range(3)]
    assert set(drawn[:2]) == {2, 4}
    assert drawn[2] in drawn[:2]


def test_the_queue_hands_a_point_out_once_where_no_worker_has_ended(tmp_path):
    asked = spec_with(seeds=[0]).study
    workers = [opened("tiny", asked, tmp_path) for _ in range(4)]
    with workers[0].take() as first, workers[1].take() as second, workers[2].take() as third, workers[3].take() as none:
        assert len({str(task.cell) for task in (first, second, third)}) == 3
        assert none is None


def test_brute_force_takes_no_further_seeds_and_the_queue_does(tmp_path):
    study = optuna.create_study(sampler=optuna.samplers.BruteForceSampler())
    study.optimize(lambda trial: trial.suggest_categorical("seed", [0, 1]))
    with pytest.raises(ValueError, match="search_space mismatch in seed"):
        study.optimize(lambda trial: trial.suggest_categorical("seed", [0, 1, 2]))
    waiting = [len(opened("tiny", spec_with(seeds=seeds).study, tmp_path).trials()) for seeds in ([0, 1], [0, 1, 2])]
    assert waiting == [6, 9]


def test_brute_force_is_for_optimize_and_not_for_ask_and_tell():
    study = optuna.create_study(sampler=optuna.samplers.BruteForceSampler())
    trial = study.ask()
    trial.suggest_categorical("reduction", [2])
    with pytest.raises(RuntimeError, match="supposed to be invoked inside an objective"):
        study.tell(trial, 0.5)
