"""What the pages say of studies is what the committed results hold."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SAID = {
    "nothing to find, four cells": "five seeds, {} called something significant",
    "nothing to find, one cell": "with one cell, {},",
    "two deviations of the difference, one cell": "at five seeds in {} of 1,500 studies with one cell",
    "two deviations of the difference, four cells": "and in {} with four",
    "two deviations of one training, one cell": "these were found in {}",
    "two deviations of one training, four cells": "% and {}. That takes more seeds",
    "one deviation of one training, at the seeds asked for": "with 16 it was found in {} of 1,500 studies",
    "three engines of one training": "scored by three engines, {} called something significant",
    "three engines, each counted as a training": "a training of its own, {} would have",
}
"""How docs/studies.md says each line of the simulations."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("study_statistics", ROOT / "benchmarks" / "study_statistics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    sys.modules["study_statistics"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return module


def test_the_page_says_what_the_simulations_found() -> None:
    found = json.loads((RESULTS / "study_statistics.json").read_text())["lines"]
    page = " ".join((ROOT / "docs" / "studies.md").read_text().split())
    assert {line["name"] for line in found} == SAID.keys()
    for line in found:
        assert line["share"] == line["found"] / line["studies"]
        assert SAID[line["name"]].format(f"{100 * line['share']:.1f} %") in page
    sizes = {line["name"]: (line["studies"], line["seeds"]) for line in found}
    assert set(sizes.values()) == {(3000, 5), (1500, 5), (1500, 16), (3000, 3)}
    assert sizes["one deviation of one training, at the seeds asked for"] == (1500, 16)


def test_the_script_simulates_the_lines_of_the_committed_file(script: ModuleType) -> None:
    committed = json.loads((RESULTS / "study_statistics.json").read_text())
    made = script.lines(0.02)
    assert committed["seed"] == script.SEED
    keys = ("name", "cells", "seeds", "planted")
    assert [[getattr(line, key) for key in keys] for line in made] == [
        [line[key] for key in keys] for line in committed["lines"]
    ]
    # A stream of its own for each line: the same studies whatever else is simulated.
    assert [line.found for line in script.lines(0.02)] == [line.found for line in made]


def test_the_plain_network_is_the_recommended_point_of_every_study_as_the_guide_says() -> None:
    page = " ".join((ROOT / "docs" / "deciding.md").read_text().split())
    assert "in every [study of ours](studies.md#what-came-out) it is the recommended point" in page
    files = sorted((RESULTS / "studies").glob("*.json"))
    assert files
    for path in files:
        made = json.loads(path.read_text())
        assert made["cells"][made["recommended"]]["plain"], path.name
