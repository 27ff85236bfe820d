"""A study over precisions: one training for both, each scored by its engine, and all engines in one race."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from fixtures.studies import SPEC
from fixtures.talk import RecordingTalk

from sesurgery import pipeline
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.pipeline import Workspace
from sesurgery.pipeline.study.race import OfCells, StudyRace, time_cells
from sesurgery.reports.pages.study import to_json, to_text
from sesurgery.reports.plots.study import plots
from sesurgery.training.data import data_of

STUDY = Path("studies") / "tiny"
GIVEN = {
    **SPEC,
    "train": {**SPEC["train"], "data": {"dataset": "digits", "held_out": 0.9}},
    "engines": [{"backend": "onnxruntime", "precision": "fp32"}],
    "latency": {
        "batch": 1,
        "rounds": 10,
        "placements": 4,
        "half_width": None,
        "repeats": 2,
        "warmup_seconds": 0,
        "threads": 1,
    },
    "study": {"axes": {"engines[0].precision": ["fp32", "int8"]}, "seeds": [0], "latency": True},
}


@pytest.fixture(scope="session")
def deployed(once):
    """A folder with the study, run to its end. Not to be changed."""

    def make():
        Path("tiny.yaml").write_text(yaml.safe_dump(GIVEN))
        pipeline.study(pipeline.load_spec("tiny.yaml"), Workspace(), "tiny.yaml")

    return once("deployed", make)


@pytest.fixture
def here(deployed, copied):
    return copied(deployed)


def study(talk=None, **changes):
    spec = pipeline.load_spec("tiny.yaml")
    return pipeline.study(spec.with_(changes) if changes else spec, Workspace(), "tiny.yaml", talk)


def manifests():
    """The details of every run, by the name of its folder."""
    found = (STUDY / "runs").glob("*/weights.safetensors.manifest.json")
    return {path.parent.name: json.loads(path.read_text())["details"] for path in found}


@pytest.mark.slow
def test_precisions_share_a_training_and_each_is_a_run_with_its_own_spec(here):
    runs = manifests()
    trained = {name for name in runs if (STUDY / "runs" / name / "train" / "last.ckpt").is_file()}
    assert len(trained) == 2
    assert {Path(runs[name]["trained_in"]).name for name in runs.keys() - trained} == trained
    assert len(runs.keys() - trained) == 4
    precisions = sorted(
        yaml.safe_load((STUDY / "runs" / name / "spec.yaml").read_text())["engines"][0]["precision"]
        for name in runs.keys() - trained
    )
    assert precisions == ["fp32", "fp32", "int8", "int8"]
    # A run like any other: it can be evaluated, and says how it was trained.
    for name in sorted(runs.keys() - trained)[:1]:
        assert pipeline.evaluate(STUDY / "runs" / name).top1 == runs[name]["top1"]
        assert len(pipeline.learning_curve(STUDY / "runs" / name)) == 1


@pytest.mark.slow
def test_the_score_of_a_cell_is_that_of_its_engine_on_the_held_out_samples(here):
    rows = study().answer.rows
    held_out = data_of(pipeline.load_spec("tiny.yaml")).held_out
    images, labels = held_out.images[: len(held_out)].numpy(), held_out.labels.numpy()
    found = {}
    for path in sorted((STUDY / "engines").glob("*.onnx")):
        with OnnxRuntime().load(path) as runner:
            (logits,) = runner.infer({runner.inputs[0].name: images}).values()
        found[path.name] = float((logits.argmax(1) == labels).mean())
    assert len(found) == len(rows) == 4
    for row in rows:
        (name,) = (
            name
            for name in found
            if row.cell.where["engines[0].precision"] in name.split(".") and name.startswith("plain") == row.cell.plain
        )
        assert row.top1.mean == pytest.approx(found[name])


@pytest.mark.slow
def test_the_engines_of_all_cells_race_once_and_again_when_one_has_changed(here, give_other_weights, monkeypatch):
    rows = study().answer.rows
    assert all(row.latency.low <= row.latency.median <= row.latency.high for row in rows)
    assert [row.latency.tax is None for row in rows] == [row.cell.plain for row in rows]
    field, raced = import_module("sesurgery.verification.field"), []
    real = field.race_field
    monkeypatch.setattr(field, "race_field", lambda files, *more: raced.append(len(files)) or real(files, *more))
    assert study().answer.rows == rows
    assert raced == []
    kept = STUDY / "reports" / "study.race.json"
    kept.write_text(kept.read_text()[:100])
    spec = pipeline.load_spec("tiny.yaml")
    assert [row.latency for row in pipeline.study_results(spec, Workspace()).answer.rows] == [None] * 4
    assert all(row.latency for row in study().answer.rows)
    assert raced == [4]
    (name,) = (
        name
        for name, made in manifests().items()
        if "trained_in" in made and made["trained_in"] and "plain" not in name and "fp32" in name
    )
    give_other_weights(STUDY / "runs" / name)
    again = study(talk := RecordingTalk()).answer.rows
    assert raced == [4, 4]
    assert "racing the engines of 4 cells" in talk.said
    assert [row.latency for row in again] != [row.latency for row in rows]


@pytest.mark.parametrize("doubt", [None, "doubtful: the machine was busy"])
def test_a_race_that_was_doubtful_is_repeated_on_request_alone(doubt, tmp_path, monkeypatch):
    module, raced = import_module("sesurgery.pipeline.study.race"), []
    entry = SimpleNamespace(cell=SimpleNamespace(key="plain"), digest="of the engine", conditions="batch 1")
    found = StudyRace(OfCells({"plain": "of the engine"}), {}, doubt)
    monkeypatch.setattr(module, "engines_of_cells", lambda *_: [entry])
    monkeypatch.setattr(module, "race_of", lambda *_: raced.append(len(raced)) or found)
    for again in (False, False, True):
        time_cells(SimpleNamespace(), SimpleNamespace(folder=tmp_path), again=again)
    assert len(raced) == (1 if doubt is None else 2)


@pytest.mark.slow
def test_cost_is_latency_in_the_table_the_advice_and_the_plot(here):
    made = study().answer
    assert [plot.title for plot in plots(made)][1] == "Accuracy against latency"
    assert "all of them ran in turn in one race" in to_text(made)
    cells = to_json(made)["cells"]
    assert all(cell["latency"]["low"] > 0 for cell in cells)
    assert [cell["tax"] is None for cell in cells] == [cell["plain"] for cell in cells]
    fastest = min(range(4), key=lambda index: cells[index]["latency"]["median"])
    assert made.pareto[0] == fastest
    assert np.isfinite([cell["tax"]["value"] for cell in cells if cell["tax"]]).all()
