"""The experiments of the projects that this one grew from: each is planned, estimated, and runs when it is small."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from fixtures.thinned import without_values

from sesurgery import pipeline
from sesurgery.studies.cells import grid, trial_spec

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "specs" / "studies" / "seeds"
SITES = {
    "cifar10_resnet46": 18,
    "cifar100_resnet46": 18,
    "cifar10_resnext29": 9,
    "cifar100_resnext29": 9,
    "cifar10_inception_v3": 8,
    "cifar100_inception_v3": 8,
    "cifar10_inception_v4": 12,
    "cifar10_inception_resnet_v2": 30,
    "tiny_imagenet": 8,
    "ratio_1_to_32": 9,
    "stages": 9,
    "integrations": 9,
    "resnet56": 27,
    "convergence": 16,
}
CELLS = {"tiny_imagenet": 12, "ratio_1_to_32": 7, "stages": 5, "integrations": 5, "cifar10_inception_v4": 2}
CELLS |= dict.fromkeys(("cifar10_inception_resnet_v2", "resnet56", "convergence"), 2)


def seeds_benchmark():
    found = importlib.util.spec_from_file_location("seeds", ROOT / "benchmarks" / "seeds.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_every_experiment_is_here():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == SITES.keys()


@pytest.mark.parametrize("name", SITES)
def test_an_experiment_passes_check_and_plan_with_its_cells_and_three_seeds(name):
    spec = pipeline.load_spec(FOLDER / f"{name}.yaml")
    assert spec.name == name
    assert (len(grid(spec.study)), len(spec.study.seeds)) == (CELLS.get(name, 3), 3)
    with without_values():
        assert len(pipeline.plan(spec).plan.sites) == SITES[name]


SLOW = ("cifar10_inception_v4", "cifar10_inception_resnet_v2", "cifar100_inception_v3")
DRY = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in SITES]


@pytest.mark.parametrize("name", DRY)
def test_the_dry_run_of_an_experiment_without_its_data_still_lists_its_trials(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with without_values():
        found = pipeline.estimate(pipeline.load_spec(FOLDER / f"{name}.yaml"))
    assert found.count == 3 * CELLS.get(name, 3)
    assert {trial.seconds for trial in found.trials} == {None}
    titles = {"tiny_imagenet": "Tiny-ImageNet", "convergence": "the image folder"}
    title = titles.get(name, "CIFAR-100" if name.startswith("cifar100") else "CIFAR-10")
    assert all(re.search(rf"{title}\b", trial.why) for trial in found.trials)


def test_the_cifar_network_of_861_818_parameters_has_the_table_that_was_published():
    planned = pipeline.plan(pipeline.load_spec(FOLDER / "resnet56.yaml"))
    assert planned.after.params == 861_818
    account = pipeline.account_of_plan(planned, depth=1, convention="fvcore").after
    assert (account.total.params, account.total.macs, account.total.activations) == (861_818, 127_105_568, 545_849)
    for part, figures in {
        ("conv1", "bn1"): (464, 475_136, 16_384),
        ("layer1",): (42_336, 43_204_896, 295_065),
        ("layer2",): (164_160, 41_804_928, 155_954),
        ("layer3",): (654_208, 41_615_872, 78_436),
    }.items():
        row = account.part(*part)
        assert (row.params, row.macs, row.activations) == figures


def test_a_version_of_the_stages_runs_to_its_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seeds = seeds_benchmark()
    small = seeds.hundredth(pipeline.load_spec(FOLDER / "stages.yaml"), tmp_path / "data", share=16 / 50_000)
    small = small.with_({"study.axes": {"surgery[0].stages": [[3]]}, "input.shape": [3, 16, 16]})
    studied = pipeline.study(small, pipeline.Workspace(tmp_path), "stages.yaml")
    assert studied.done == 2
    assert not any(row.failures for row in studied.answer.rows)
    assert trial_spec(small, grid(small.study)[1], 0).surgery[0].stages == (3,)
