"""The committed results of benchmarks/zoo_specs.py and seeds.py: complete, as they must be, and those on pages."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from sesurgery import pipeline
from sesurgery.spec import zoo
from sesurgery.studies.cells import grid

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ZOO = json.loads((RESULTS / "zoo_specs.json").read_text())
SEEDS = json.loads((RESULTS / "seeds.json").read_text())
COLUMNS = ("plan", "apply", "equal", "train", "modes", "replay", "export")
REFERENCES = [(name, reference) for name, found in ZOO["networks"].items() for reference in found["references"]]
each_reference = pytest.mark.parametrize(
    ("name", "reference"), REFERENCES, ids=[f"{name}-{reference['library']}" for name, reference in REFERENCES]
)


def benchmark(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_every_network_of_the_zoo_was_measured_beside_a_reference():
    assert tuple(ZOO["networks"]) == zoo.names()
    assert [name for name, found in ZOO["networks"].items() if not found["references"]] == ["seresnet46"]


@each_reference
def test_parameters_differ_from_a_reference_by_what_has_a_reason(name, reference):
    assert reference["ours"] - reference["params"] == reference["expected"]
    assert bool(reference["expected"]) == bool(reference["why"])


@each_reference
def test_outputs_are_those_of_the_reference_and_without_gates_those_of_the_plain_network(name, reference):
    assert reference.get("outputs", 0) <= 1e-5
    assert reference.get("removed", 0) <= 1e-5


@pytest.mark.parametrize("name", [name for name, found in ZOO["networks"].items() if "onnx" in found])
def test_a_file_at_full_size_is_as_near_to_the_exact_values_as_the_network(name):
    found = ZOO["networks"][name]
    assert found["onnx"] <= max(1e-5, 5 * found["torch"])


def test_the_zoos_page_is_that_of_the_results(tmp_path):
    benchmark("zoo_page").write_page(ZOO, tmp_path / "zoo.md")
    assert (tmp_path / "zoo.md").read_text() == (ROOT / "docs" / "zoo.md").read_text()


NEVER_COMPARED = {
    "huggingface:CvtForImageClassification": "refused",
    "pytorchcv:condensenet74_c8_g8": "refused",
    "ultralytics:rtdetr-resnet50.yaml": "does not export before it has run",
    "ultralytics:yolov8-rtdetr.yaml": "does not export before it has run",
}
"""Networks whose file's sites are not known, and why."""
OTHER_SITES = ["pytorchcv:sharesnet18"]
"""Of its units, which share modules, the file names some after another one."""


STILL = ["timm:cait_xxs24_224", "timm:cait_xxs24_384"]
"""Networks whose outputs another image hardly moves, with drawn weights too."""


def table() -> list[dict]:
    return json.loads((RESULTS / "zoo.json").read_text())["models"]


def test_of_300_networks_97_in_100_pass_every_column_and_none_has_other_sites_in_its_file():
    rows = table()
    assert len(rows) >= 300
    passed = [row for row in rows if all(row.get(column) for column in COLUMNS)]
    assert len(passed) >= 0.97 * len(rows)
    assert {row["model"] for row in rows if "sites_agree" not in row} == NEVER_COMPARED.keys()
    assert [row["model"] for row in rows if row.get("sites_agree")] == OTHER_SITES


def test_equal_outputs_say_something():
    """Outputs that do not depend on the image are equal whatever was done to the network."""
    rows = table()
    assert [row["model"] for row in rows if row.get("export_difference", 1) < 1e-9] == []
    passed = [row for row in rows if all(row.get(column) for column in COLUMNS)]
    assert [row["model"] for row in passed if not row.get("keys")] == []
    assert [row["model"] for row in passed if row["moves"] < 0.01] == STILL
    assert [row["model"] for row in rows if row.get("keys") is False] == []


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/zoo.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    # It sets the variable where there is none.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return benchmark("zoo")


PASSED = {"model": "timm:x", "placement": "residual", "size": 64, "sites": 8, **dict.fromkeys(COLUMNS, True)}


def test_what_a_passing_row_lacks_is_filled_in_and_nothing_else(program):
    row = PASSED | {"keys": True}
    assert program.missing(row) == ("sites_agree", "moves")
    assert program.missing(row | {"export": False}) == ()
    new = {"sites_agree": "", "moves": 0.5, "drawn": True, "difference": 0.0}
    assert program.filled(row, PASSED | {"keys": False} | new)[0] == row | new


def test_a_row_that_cannot_be_filled_in_stays_as_it_is_and_that_is_told(program):
    assert program.filled(PASSED, PASSED | {"sites": 7}) == (None, "has sites 7 now, not 8: measure its row again")
    late = {"model": "timm:x", "reason": "took over 400 s"}
    assert program.filled(PASSED, late) == (None, "stays as it is: took over 400 s")


def test_a_row_whose_outputs_turn_out_to_differ_does_not_pass_any_more(program):
    found = {"keys": True, "moves": 1.0, "difference": 1e-3, "equal": False, "reason": "outputs differ"}
    row, _ = program.filled(PASSED, PASSED | found)
    assert row == PASSED | found
    assert program.missing(row) == ()


def test_the_page_of_supported_networks_is_that_of_the_results(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark("zoo_table").write_table(RESULTS / "zoo.json", tmp_path / "support.md", COLUMNS)
    assert (tmp_path / "support.md").read_text() == (ROOT / "docs" / "support.md").read_text()


EXPERIMENTS = sorted((ROOT / "specs" / "studies" / "seeds").glob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_ran_with_all_its_cells_and_the_page_shows_it(path):
    found = SEEDS["studies"][path.stem]
    assert found["failed"] == 0
    assert found["cells"] == len(found["params"]) == len(grid(pipeline.load_spec(path).study))
    shown = f"| {path.stem} | {found['cells']} | {found['classes']:,} | {found['samples']:,} | {found['epochs']} |"
    assert shown in (ROOT / "docs" / "studies.md").read_text()
