"""The studies that are in the project: each loads, with as many cells as its comment's question has answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from sesurgery import pipeline
from sesurgery.studies.cells import grid

FOLDER = Path(__file__).parents[3] / "specs" / "studies"
CELLS = {"ratio": 5, "stage": 5, "placement": 6, "squeeze": 3, "excitation": 4, "depth": 6, "worth": 2}
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
