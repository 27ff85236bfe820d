"""The studies that are in the project: each loads, with as many cells as its comment's question has answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from fixtures.thinned import without_values

from sesurgery import pipeline
from sesurgery.studies.cells import grid

FOLDER = Path(__file__).parents[3] / "specs" / "studies"
CELLS = {"ratio": 6, "stage": 5, "placement": 6, "squeeze": 4, "excitation": 4, "depth": 6, "worth": 2}
SEEDS = {"worth": 5}


def test_there_is_a_study_for_each_question():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == CELLS.keys()


@pytest.mark.parametrize("name", CELLS)
def test_a_study_of_the_project_has_its_cells_its_seeds_and_a_schema(name):
    path = FOLDER / f"{name}.yaml"
    study = pipeline.load_spec(path).study
    assert (len(grid(study)), len(study.seeds)) == (CELLS[name], SEEDS.get(name, 3))
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert (path.parent / first.partition("$schema=")[2]).is_file()


IMAGENET = ("ratio", "stage", "placement", "squeeze", "excitation", "depth")
SCALE = {
    *("name", "model.source", "model.name", "model.kwargs", "input.shape"),
    *("train.data", "train.epochs", "train.batch_size", "train.threads", "train.augment"),
    *("train.optimizer.lr", "train.optimizer.weight_decay"),
}
"""Keys in which the ImageNet version of a study may differ: the data, and what its size asks for."""
OF_ONE = {
    # Channels are 16 to 64 on the small network; the paper's ratio is 16. The study of ratios sets its own.
    **{name: {"surgery.0.insert.reduction"} for name in IMAGENET},
    "stage": {"surgery.0.insert.reduction", "study.axes.surgery[0].stages"},
    "depth": {"surgery.0.insert.reduction", "study.axes.model.name"},
}


def flat(given, place=()):
    """Every value by its path; data sets and augmentation are one value, and so are the values of an axis."""
    whole = ".".join(place) in ("train.data", "train.augment", "model.kwargs", "input.shape") or place[:2] == (
        "study",
        "axes",
    )
    if isinstance(given, dict) and not (whole and place != ("study", "axes")):
        return {path: value for key, inner in given.items() for path, value in flat(inner, (*place, key)).items()}
    if isinstance(given, list) and not whole:
        return {
            path: value for key, inner in enumerate(given) for path, value in flat(inner, (*place, str(key))).items()
        }
    return {".".join(place): given}


def differing(name):
    small, large = (
        flat(yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")))
        for folder in (FOLDER, FOLDER / "imagenet")
    )
    return {path for path in small.keys() | large.keys() if small.get(path) != large.get(path)}


def test_there_is_an_imagenet_version_of_each_of_the_papers_questions():
    assert {path.stem for path in (FOLDER / "imagenet").glob("*.yaml")} == set(IMAGENET)


@pytest.mark.parametrize("name", IMAGENET)
def test_an_imagenet_version_differs_in_data_and_scale_alone(name):
    found = differing(name)
    assert found - SCALE - OF_ONE[name] == set()
    assert {"name", "model.name", "input.shape", "train.data", "train.epochs"} <= found


@pytest.mark.parametrize("name", IMAGENET)
def test_an_imagenet_version_passes_check_and_plan_with_as_many_cells(name):
    path = FOLDER / "imagenet" / f"{name}.yaml"
    spec = pipeline.load_spec(path)
    assert (len(grid(spec.study)), len(spec.study.seeds)) == (CELLS[name], 3)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert (path.parent / first.partition("$schema=")[2]).is_file()
    with without_values():
        assert len(pipeline.plan(spec).plan.sites) == 16


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "squeeze" else pytest.mark.slow) for name in IMAGENET]
)
def test_the_dry_run_of_an_imagenet_version_plans_each_cell_and_names_the_data(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with without_values():
        found = pipeline.estimate(pipeline.load_spec(FOLDER / "imagenet" / f"{name}.yaml"))
    assert found.count == 3 * CELLS[name]
    assert all("the image folder" in trial.why for trial in found.trials)
