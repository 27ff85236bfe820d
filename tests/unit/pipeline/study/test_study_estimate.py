"""What a dry run says of a study: its trials, what is in their time, and whether the study takes it."""

from __future__ import annotations

import time
from importlib import import_module

import pytest
import torch
from fixtures.studies import spec_with

from sesurgery import pipeline
from sesurgery.diagnostics import fail
from sesurgery.pipeline import Workspace
from sesurgery.pipeline.study.timed_engine import EngineTime
from sesurgery.training.recipes.augment import Augmentation


def test_a_dry_run_lists_the_trials_with_their_time_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = pipeline.estimate(spec_with())
    assert (len(found.trials), found.count) == (9, 9)
    assert all(trial.seconds > 0 for trial in found.trials)
    assert (found.cells, found.plain) == (2, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def built(monkeypatch):
    """Engines without a build: the list of those that were timed, as `(precision, whether it has blocks)`."""
    found = []

    def engine_time(spec, number):
        found.append((spec.engines[number].precision, bool(pipeline.plan(spec).plan.sites)))
        return EngineTime(build=3.0, score=0.5, load=0.25, run=0.01)

    monkeypatch.setattr(import_module("sesurgery.pipeline.study.estimate"), "engine_time", engine_time)
    return found


def test_a_dry_run_counts_a_training_that_cells_share_once(tmp_path, monkeypatch, built):
    monkeypatch.chdir(tmp_path)
    found = pipeline.estimate(spec_with(axes={"engines[0].precision": ["fp32", "int8"]}, seeds=[0]))
    assert [(str(each.cell), each.shared) for each in found.trials] == [
        ("plain, precision=fp32", False),
        ("precision=fp32", False),
        ("plain, precision=int8", True),
        ("precision=int8", True),
    ]
    assert all(each.seconds > 3.5 for each in found.trials[:2])
    # Each builds an engine and scores it all the same, taken to be as the plain network's.
    assert [each.seconds for each in found.trials[2:]] == [3.5, 3.5]
    assert built == [("fp32", False), ("int8", False)]
    assert found.seconds == pytest.approx(sum(each.seconds for each in found.trials))


def test_a_dry_run_counts_the_race_and_the_engines_that_are_built_for_it(tmp_path, monkeypatch, built):
    monkeypatch.chdir(tmp_path)
    latency = {"placements": 4, "rounds": 20, "repeats": 9, "warmup_seconds": 0.5, "half_width": 0.01}
    spec = spec_with(seeds=[0], latency=True).with_({"latency": latency})
    found = pipeline.estimate(spec)
    # Three engines, each loaded four times for five rounds of ten runs, warmed up for at most a second in all.
    race = 4 * 3 * (0.25 + 5 * 10 * 0.01) + 3 * 1.0
    assert found.race == pytest.approx(3 * 3.0 + race + min(30, 3 * race))
    assert found.seconds == pytest.approx(sum(each.seconds for each in found.trials) + found.race)
    exactly = pipeline.estimate(spec.with_({"latency.half_width": None})).race
    assert exactly == pytest.approx(3 * 3.0 + race)
    assert len(built) == 2
    monkeypatch.setattr(
        import_module("sesurgery.pipeline.study.estimate"), "engine_time", lambda *_: _raise(fail("SE603", "no engine"))
    )
    without = pipeline.estimate(spec)
    assert (without.race, without.why_race) == (None, "no engine")
    assert without.seconds == pytest.approx(sum(each.seconds for each in without.trials))


def _raise(error):
    raise error


def test_a_dry_run_trains_with_the_threads_and_the_augmentation_of_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, seen, changed = import_module("sesurgery.training.loop.fit"), [], []
    real, values = module.logits, Augmentation.values

    def epoch(network, *arguments):
        network.register_forward_pre_hook(lambda module, _: seen.append((torch.get_num_threads(), module.training)))
        return real(network, *arguments)

    monkeypatch.setattr(module, "logits", epoch)
    monkeypatch.setattr(Augmentation, "values", lambda *given: changed.append(1) or values(*given))
    before = torch.get_num_threads()
    spec = spec_with(axes={}, seeds=[0]).with_({"train.augment": {"shift": 1}, "train.threads": before + 1})
    assert pipeline.estimate(spec).seconds > 0
    # Two cells: eight batches of 64 augmented images each, and the 180 held-out images in one.
    assert seen.count((before + 1, True)) == 2 * 8
    assert seen.count((before + 1, False)) == 2
    assert len(changed) == 2 * 8 * 64
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_the_time_of_a_dry_run_is_that_of_the_study_within_a_factor_of_three(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    latency = {"placements": 4, "rounds": 10, "half_width": None, "threads": 1}
    changes = {"train.epochs": 3, "engines": [{"backend": "onnxruntime"}], "latency": latency}
    spec = spec_with(axes={}, seeds=[0], latency=True).with_(changes)
    before = pipeline.estimate(spec).seconds
    started = time.perf_counter()
    done = pipeline.study(spec, Workspace(), "tiny.yaml")
    taken = time.perf_counter() - started
    assert all(row.trials == 1 and row.latency for row in done.answer.rows)
    # Before and after: other programs come and go.
    assert 1 / 3 < (before + pipeline.estimate(spec).seconds) / 2 / taken < 3


def test_a_dry_run_of_a_random_search_lists_the_trials_that_are_then_run(tmp_path, monkeypatch, ran):
    monkeypatch.chdir(tmp_path)
    axes = {"surgery[0].insert.reduction": [2, 4], "train.optimizer.lr": {"low": 0.01, "high": 0.1}}
    spec = spec_with(axes=axes, search="random", cells=4, seeds=[0, 1])
    found = pipeline.estimate(spec)
    pipeline.study(spec, Workspace(), "tiny.yaml")
    assert sorted((str(trial.cell), trial.seed) for trial in found.trials) == sorted(ran)
    assert (found.cells, found.plain, found.unknown, found.count) == (4, 4, 0, 16)
    assert found.seconds == pytest.approx(16 * found.trials[0].seconds)


def test_a_dry_run_of_a_bayesian_search_lists_where_it_begins_and_counts_the_rest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lr = {"low": 0.01, "high": 0.1}
    found = pipeline.estimate(spec_with(axes={"train.optimizer.lr": lr}, search="bayesian", cells=5))
    assert (found.cells, found.plain, found.unknown, found.count, len(found.trials)) == (5, 5, 4, 30, 6)
    assert found.trials[0].seconds > 0
    assert found.seconds == pytest.approx(30 * found.trials[0].seconds)
    found = pipeline.estimate(spec_with(search="bayesian", cells=5))
    assert (found.cells, found.plain, found.unknown, found.count, len(found.trials)) == (2, 1, 1, 9, 6)
