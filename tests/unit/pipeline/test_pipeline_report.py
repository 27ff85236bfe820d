"""The report of a run at any stage of its life: what was done is in it, what was not is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline import BenchRequest, Workspace

RUN = Path("runs/tiny")


def test_after_apply_there_are_sites_and_nothing_else(empty):
    run = pipeline.apply(pipeline.load_spec("tiny.yaml"), Workspace(), "tiny.yaml").folder
    report = pipeline.write_report(run, Workspace()).report
    assert [site.key for site in report.network.sites] == [f"se/layer{layer}.0[0]" for layer in (1, 2, 3)]
    assert (report.training, report.engines, report.latency) == (None, (), ())


def test_after_training_and_building_an_engine_is_not_yet_verified(here):
    report = pipeline.write_report(RUN, Workspace()).report
    assert report.training is not None
    assert [row.epoch for row in report.training.epochs] == [1, 2, 3, 4]
    assert [(engine.precision, engine.not_verified) for engine in report.engines] == [
        ("fp16", "it has not been verified yet"),
        ("fp32", "it has not been verified yet"),
    ]


def test_each_verb_adds_its_own(here):
    pipeline.verify(Path("engines/tiny.onnxruntime.fp32.onnx"))
    pipeline.bench(BenchRequest(Path("engines/tiny.onnxruntime.fp16.onnx"), Workspace()))
    report = pipeline.write_report(RUN, Workspace()).report
    assert [(engine.precision, engine.not_verified) for engine in report.engines] == [
        ("fp16", "it has not been verified yet"),
        ("fp32", None),
    ]
    assert [section.title for section in report.latency] == ["onnxruntime fp16, batch 1"]


def test_the_report_names_the_command_that_makes_it_again(here):
    assert pipeline.write_report(RUN, Workspace()).report.command == "sesurgery run tiny.yaml"


def test_three_forms_of_one_report_are_written(here):
    written = pipeline.write_report(RUN, Workspace())
    assert [path.name for path in (written.html, written.markdown, written.json)] == [
        "report.html",
        "report.md",
        "report.json",
    ]
    for path in (written.html, written.markdown, written.json):
        assert "se/layer1.0" in path.read_text()


def test_a_report_of_a_damaged_run_is_not_written(here):
    (RUN / "plan.json").write_text("{}")
    with pytest.raises(SesurgeryError, match="SE401"):
        pipeline.write_report(RUN, Workspace())
    assert not (RUN / "report.html").exists()
