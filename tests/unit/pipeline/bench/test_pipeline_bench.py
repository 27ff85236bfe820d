"""The verb `bench`: whom it races, in how many processes, and what it keeps of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.tiny import SPEC

from sesurgery import pipeline
from sesurgery.backends import runs_here
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline import BenchRequest, EnginesRequest, Workspace
from sesurgery.workspace import read_manifest

RUN = Path("runs/tiny")
FP32 = Path("engines/tiny.onnxruntime.fp32.onnx")
AS_EXPORTED = Path("engines/tiny.onnxruntime.fp32.as-exported.onnx")
KEPT = RUN / "reports" / "tiny.onnxruntime.fp32.onnx.latency.json"


def test_the_engine_as_exported_runs_in_the_same_race(here):
    benched = pipeline.bench(BenchRequest(FP32, Workspace()))
    assert benched.as_exported == AS_EXPORTED
    report = benched.section.report
    assert [timing.name for timing in report.engines] == ["with blocks", "without", "as exported"]
    assert report.as_exported_tax is not None
    assert report.lowering is not None
    manifest = read_manifest(AS_EXPORTED)
    # Of the very file that was exported, and without what the backend does to gates.
    assert list(manifest.parent_files(AS_EXPORTED)) == [Path("export/tiny.onnx")]
    assert not any("gates" in note for note in manifest.details.notes)
    assert any("gates" in note for note in read_manifest(FP32).details.notes)


def test_engines_to_measure_against_are_no_engines_of_the_run(here):
    pipeline.bench(BenchRequest(FP32, Workspace()))
    assert AS_EXPORTED.is_file()
    assert Workspace().newest_engine(runs_here) != AS_EXPORTED
    files = [engine.file for engine in pipeline.write_report(RUN, Workspace()).report.engines]
    assert files == ["engines/tiny.onnxruntime.fp16.onnx", FP32.as_posix()]


def test_where_nothing_was_lowered_nothing_is_raced_as_exported(here):
    benched = pipeline.bench(BenchRequest(Path("engines/tiny.onnxruntime.fp16.onnx"), Workspace()))
    assert benched.as_exported is None
    assert benched.section.report.as_exported is None
    assert not list(Path("engines").glob("*as-exported*"))


def test_building_as_exported_leaves_the_lowered_engine_up_to_date(here):
    wanted = pipeline.engine({"precision": "int8"})
    (built,) = pipeline.build_engines(EnginesRequest(RUN, Workspace(), (wanted,)))
    # Of another file than the lowered engine, also where the backend wants a file of its own in any case.
    (other,) = pipeline.build_engines(EnginesRequest(RUN, Workspace(), (wanted,), as_exported=True))
    assert other.path.name == "tiny.onnxruntime.int8.as-exported.onnx"
    assert other.manifest.parents[0].path != built.manifest.parents[0].path
    (again,) = pipeline.build_engines(EnginesRequest(RUN, Workspace(), (wanted,)))
    assert again.why is None


@pytest.mark.parametrize(
    ("takes", "batch"),
    [
        ({"batch": {"min": 4, "opt": 8, "max": 16}}, 4),
        ({"shapes": ["input=16,16,32x1x8x8", "input=6,8,8x1x8x8"]}, 6),
        ({"batch": {"min": 1, "opt": 8, "max": 16}}, 1),
    ],
    ids=["batch", "profiles", "one"],
)
def test_where_the_spec_names_no_batch_an_engine_is_timed_at_one_that_it_takes(takes, batch, empty):
    pytest.importorskip("openvino")
    text = SPEC.replace("latency: {batch: 1, ", "latency: {")
    Path("tiny.yaml").write_text(text)
    run = pipeline.apply(pipeline.load_spec("tiny.yaml"), Workspace(), "tiny.yaml").folder
    wanted = pipeline.engine({"backend": "openvino", **takes})
    (built,) = pipeline.build_engines(EnginesRequest(run, Workspace(), (wanted,)))
    assert pipeline.bench(BenchRequest(built.path, Workspace())).section.title == f"openvino fp32, batch {batch}"


def test_each_batch_has_a_race_and_all_are_in_the_report(here):
    benched = pipeline.bench(BenchRequest(FP32, Workspace(), batches=(1, 4), as_exported=False))
    assert [section.report.batch for section in benched.sections] == [1, 4]
    reported = pipeline.write_report(RUN, Workspace()).report
    assert [section.title for section in reported.latency] == [
        "onnxruntime fp32, batch 1",
        "onnxruntime fp32, batch 4",
    ]


@pytest.mark.slow
def test_fresh_processes_repeat_the_race(here):
    report = pipeline.bench(BenchRequest(FP32, Workspace(), processes=2, as_exported=False)).section.report
    assert (report.processes, report.placements, report.tax.processes) == (2, 8, 2)
    assert len(report.candidate.round_seconds) == report.rounds == 24
    assert "2 processes make a wide interval" in report.doubt


@pytest.mark.slow
def test_what_goes_wrong_in_a_fresh_process_is_said_as_it_was_there(here):
    # The engine takes 256 samples at most; so many are held out, but the batch is more than the engine's.
    with pytest.raises(SesurgeryError, match="SE606"):
        pipeline.bench(BenchRequest(FP32, Workspace(), processes=2, batches=(60_000,), as_exported=False))


@pytest.mark.parametrize(
    "text", ['{"section": {}, "of": {"engine": "", "weights": ""}}', "{}"], ids=["earlier", "broken"]
)
def test_a_measurement_that_cannot_be_read_is_refused_by_name(text, here):
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(text)
    with pytest.raises(SesurgeryError, match=r"SE401.*latency\.json is not what was measured") as caught:
        pipeline.write_report(RUN, Workspace())
    assert "sesurgery bench" in str(caught.value.diagnostics[0].hint)
