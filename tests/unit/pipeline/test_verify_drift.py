"""`verify --drift`: the error along the network of an engine, and the change of the spec that repairs a wrong one."""

from pathlib import Path

import numpy as np

from sesurgery import pipeline
from sesurgery.pipeline.engines import EnginesRequest
from sesurgery.reports import drift as drift_text
from sesurgery.verification.parity import PARITY

RUN, FP32 = Path("runs/tiny"), Path("engines/tiny.onnxruntime.fp32.onnx")


def test_an_engine_that_is_right_shows_its_small_error_at_every_block(here):
    section = pipeline.verify(FP32, drift=True).section
    sites = [each.site for each in section.drift.errors if each.site]
    assert sites == ["se/layer1.0[0]", "se/layer2.0[0]", "se/layer3.0[0]"]
    assert all(0 <= each.error < 1e-4 for each in section.drift.errors)
    assert (section.diagnosis, section.repairs) == (None, ())
    assert drift_text.findings(section) == ["no place is over 0.001, which fp32 explains"]
    assert PARITY.file(RUN, FP32.name).is_file()


def test_int8_that_was_calibrated_on_dim_images_is_said_to_saturate_and_repaired(here):
    np.save("dim.npy", np.random.default_rng(0).normal(0, 0.02, (16, 1, 8, 8)).astype(np.float32))
    wanted = pipeline.engine({"precision": "int8", "calibration": {"file": "dim.npy"}})
    (built,) = pipeline.build_engines(EnginesRequest(RUN, pipeline.Workspace(), (wanted,)))
    before = sorted(Path().rglob("*.onnx"))
    verified = pipeline.verify(built.path, drift=True)
    section = verified.section
    assert section.diagnosis.kind == "saturation"
    (repair,) = section.repairs
    assert repair.worked
    assert str(repair).startswith("engines[-].calibration: {")
    assert "saturation" in verified.failures[0].hint
    assert any("repaired by calibration on the run's training data" in line for line in drift_text.findings(section))
    assert sorted(Path().rglob("*.onnx")) == before
