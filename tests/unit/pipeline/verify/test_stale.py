"""What was measured of other weights, of another engine, or at a size that was not compared is never told as passed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline import BenchRequest, EnginesRequest, Workspace, report
from sesurgery.spec.parity import Parity
from sesurgery.verification.parity import PARITY
from sesurgery.workspace import read_manifest

RUN = Path("runs/tiny")
FP32 = Path("engines/tiny.onnxruntime.fp32.onnx")


def told(engine: Path = FP32):
    """What the report says of an engine, and how many timings it shows."""
    made = report.assemble(RUN, Workspace())
    (section,) = [section for section in made.engines if section.file == engine.as_posix()]
    return section, len(made.latency)


def respec(parity: str) -> None:
    """Another `parity:` for the next run of the spec."""
    Path("other.yaml").write_text(Path("tiny.yaml").read_text().replace("{batches: [64]}", parity))


def test_an_engine_of_other_weights_is_neither_timed_nor_told_as_passed(here, give_other_weights):
    pipeline.verify(FP32)
    pipeline.bench(BenchRequest(FP32, Workspace()))
    assert (told()[0].passed, told()[1]) == (True, 1)
    give_other_weights(RUN)
    with pytest.raises(
        SesurgeryError, match=r"SE401.*not built from the weights(.|\n)*sesurgery build-engine runs/tiny"
    ):
        pipeline.bench(BenchRequest(FP32, Workspace()))
    section, timings = told()
    assert (section.passed, section.parity, timings) == (None, (), 0)
    assert section.not_verified.startswith("stale: engines/tiny.onnxruntime.fp32.onnx was not built from the weights")
    assert "sesurgery build-engine runs/tiny" in section.not_verified


def test_a_plain_engine_of_other_weights_is_no_rival(here, give_other_weights):
    (plain,) = pipeline.build_engines(EnginesRequest(RUN, Workspace(), plain=True))
    give_other_weights(RUN)
    pipeline.build_engines(EnginesRequest(RUN, Workspace()))
    with pytest.raises(SesurgeryError, match=r"SE401.*plain(.|\n)*sesurgery export runs/tiny --plain"):
        pipeline.bench(BenchRequest(FP32, Workspace(), plain.path))


def test_what_was_measured_of_another_engine_of_that_name_is_not_told(here):
    pipeline.verify(FP32)
    kept = PARITY.file(RUN, FP32.name)
    before = kept.read_bytes()
    engine = FP32.read_bytes()
    pipeline.build_engines(EnginesRequest(RUN, Workspace(), again=True))
    # As if the build had been killed before it took the old results away; builds of one file can be equal bytes.
    kept.write_bytes(before)
    if FP32.read_bytes() == engine:
        kept.write_bytes(before.replace(read_manifest(FP32).sha256.encode(), b"0" * 64))
    section, _ = told()
    assert (section.passed, section.not_verified) == (None, "it has not been verified yet")


def test_a_damaged_engine_is_not_told_as_passed(here):
    pipeline.verify(FP32)
    FP32.write_bytes(FP32.read_bytes() + b" ")
    section, _ = told()
    assert section.passed is None
    assert "is not the file its manifest describes" in section.not_verified


@pytest.mark.parametrize(
    ("batch", "why"),
    [(128, "the engine was built for batches from 1 to 64"), (200, "there are 180 held-out samples")],
)
def test_a_size_that_cannot_be_compared_is_not_passed(batch, why, empty):
    respec(f"{{batches: [2, {batch}]}}")
    run = pipeline.apply(pipeline.load_spec("other.yaml"), Workspace(), "other.yaml").folder
    largest = 64 if batch == 128 else 256
    (built,) = pipeline.build_engines(EnginesRequest(run, Workspace(), (pipeline.engine({"batch": {"max": largest}}),)))
    verified = pipeline.verify(built.path)
    assert [entry.batch for entry in verified.section.parity] == [2]
    assert verified.section.passed is None
    (failure,) = verified.failures
    assert failure.message == f"{built.path.name} was not verified at batch {batch}: {why}"


def test_sizes_that_nobody_named_are_those_the_engine_takes(empty):
    respec("{}")
    assert Parity().batches == (1, 32)
    run = pipeline.apply(pipeline.load_spec("other.yaml"), Workspace(), "other.yaml").folder
    (built,) = pipeline.build_engines(EnginesRequest(run, Workspace(), (pipeline.engine({"batch": {"max": 4}}),)))
    verified = pipeline.verify(built.path)
    assert [entry.batch for entry in verified.section.parity] == [1, 3, 4]
    assert verified.section.passed is True
