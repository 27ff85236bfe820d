"""`bench` without a run: two ONNX files, or engines of them, raced on noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline import BenchRequest, Workspace
from sesurgery.workspace import read_manifest

pytestmark = pytest.mark.usefixtures("brief_races")


def test_two_files_race_as_engines_that_are_built_alike(files: Path) -> None:
    found = pipeline.bench(BenchRequest(Path("net.onnx"), Workspace(), Path("plain.onnx")))
    assert (found.engine, found.against, found.run) == (
        Path("engines/net.onnxruntime.fp32.onnx"),
        Path("engines/plain.onnxruntime.fp32.onnx"),
        None,
    )
    report = found.section.report
    assert [timing.name for timing in report.engines] == ["net.onnx", "plain.onnx", "as exported"]
    assert found.as_exported == Path("engines/net.onnxruntime.fp32.as-exported.onnx")
    assert report.tax is not None
    assert not Path("runs").exists()


def test_a_file_is_built_as_the_engine_that_it_is_raced_against(files: Path) -> None:
    asked = pipeline.engine({"backend": "onnxruntime", "precision": "fp16", "batch": {"max": 2}})
    mine = pipeline.build_engine(pipeline.BuildRequest(Path("net.onnx"), asked, Workspace())).path
    found = pipeline.bench(BenchRequest(mine, Workspace(), Path("plain.onnx"), batches=(1, 2)))
    made = read_manifest(found.against)
    assert (made.details.precision, made.details.engine.batch.max) == ("fp16", 2)
    assert [section.report.batch for section in found.sections] == [1, 2]


def test_an_engine_of_a_file_needs_a_rival(files: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"SE402.*its plain network is not known") as caught:
        pipeline.bench(BenchRequest(Path("net.onnx"), Workspace()))
    assert "--against PLAIN.onnx" in caught.value.diagnostics[0].hint


def test_a_file_that_is_not_there_is_named(files: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"SE402.*gone\.onnx is not there"):
        pipeline.bench(BenchRequest(Path("gone.onnx"), Workspace(), Path("plain.onnx")))
