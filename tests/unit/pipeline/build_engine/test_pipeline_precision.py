"""Engines in bf16 and int8: what their samples are, what is refused before anything is written, what is recorded."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.lowering.precision import autocast as _autocast
from sesurgery.pipeline import EnginesRequest, Workspace
from sesurgery.pipeline.build_engine import calibration
from sesurgery.pipeline.build_engine.building import BuildResult
from sesurgery.pipeline.build_engine.lowered import passes_for
from sesurgery.pipeline.build_engine.request import command
from sesurgery.spec.engines import Calibration
from sesurgery.training.data import data_of
from sesurgery.workspace import OnnxDetails, OnnxManifest, read_manifest
from sesurgery.workspace.origin import Origin

RUN = Path("runs/tiny")
FOREIGN = """
<ir_version: 10, opset_import: ["": 20]>
net (float[batch, 1, 4, 4] x) => (float[batch, 2, 4, 4] y)
<float[2, 1, 3, 3] w = {1,2,3,4,5,6,7,8,9, 9,8,7,6,5,4,3,2,1}> { c = Conv<pads=[1,1,1,1]>(x, w) y = Relu(c) }
"""
INT8 = {"precision": "int8"}


def foreign() -> Path:
    onnx.save(onnx.parser.parse_model(FOREIGN), "theirs.onnx")
    return Path("theirs.onnx")


def build(given: Path, **wanted: object) -> BuildResult:
    (built,) = pipeline.build_engines(EnginesRequest(given, Workspace(), (pipeline.engine(wanted),)))
    return built


def details(path: str) -> OnnxDetails:
    return read_manifest(Path(path), OnnxManifest).details


def test_int8_is_calibrated_on_training_data_and_says_so(here):
    built = build(RUN, **INT8)
    assert dict(built.report.convolutions)["int8"] > 0
    said = details("export/tiny.onnxruntime.int8.onnx")
    assert said.calibration == "256 samples of the training data of runs/tiny"
    assert said.method == "minmax"
    assert 0 < said.difference < 0.25
    assert any(kept.kind == "gate" for kept in said.kept_fp32)
    (entry,) = pipeline.verify(built.path).section.parity
    # How much eight bits cost hangs on the training; what they must not be is noise.
    assert entry.report.agreement > 0.9
    # The engine's own manifest tells it too: the report is made of engines, and export/ may have gone on.
    assert built.manifest.details.kept_fp32 == said.kept_fp32
    page = pipeline.write_report(Path(RUN), pipeline.Workspace()).html.read_text()
    assert "what stayed in fp32, and why" in page


def test_calibration_never_sees_the_held_out_samples_and_is_the_same_every_time(here):
    model, origin = onnx.load("export/tiny.onnx"), Origin.read(Path("export/tiny.onnx"))
    first, _ = calibration.samples(model, origin, Calibration(samples=64))
    second, _ = calibration.samples(model, origin, Calibration(samples=64))
    data = data_of(pipeline.load_spec("tiny.yaml"))
    train = {image.numpy().tobytes() for image in data.train.images[:]}
    held_out = {image.numpy().tobytes() for image in data.held_out.images[:]} - train
    fed = [feeds["input"][0].tobytes() for feeds in first]
    assert len(fed) == 64
    assert set(fed) <= train
    assert not set(fed) & held_out
    assert fed == [feeds["input"][0].tobytes() for feeds in second]


def test_fp16_of_a_run_has_its_ranges_checked_on_data(here):
    assert details("export/tiny.fp16.onnx").calibration == "256 samples of the training data of runs/tiny"


def test_a_file_from_elsewhere_needs_samples_for_int8(empty):
    with pytest.raises(SesurgeryError, match=r"SE402.*int8 needs samples") as caught:
        build(foreign(), **INT8)
    assert "--calibration FILE" in str(caught.value.diagnostics[0].hint)
    assert not Path("export").exists()


@pytest.mark.parametrize("save", [np.save, lambda path, array: np.savez(path, x=array)], ids=["npy", "npz"])
def test_samples_come_from_a_file_where_it_is_given(save, empty):
    path = Path("samples.npy" if save is np.save else "samples.npz")
    save(path, np.random.default_rng(0).normal(size=(8, 1, 4, 4)).astype(np.float32))
    built = build(foreign(), **INT8, calibration={"file": path.as_posix(), "samples": 5})
    assert dict(built.report.convolutions) == {"int8": 1}
    said = details("export/theirs.onnxruntime.int8.onnx")
    assert said.calibration == f"5 samples of {path}"
    parents = [parent.path for parent in read_manifest(Path("export/theirs.onnxruntime.int8.onnx")).parents]
    assert parents == ["../theirs.onnx", f"../{path}"]
    assert f"--calibration {path}" in built.manifest.command


@pytest.mark.parametrize(
    ("array", "code", "words"),
    [
        (np.zeros((4, 1, 5, 5), np.float32), "SE606", "samples of input 'x' have shape 4x1x5x5; it takes \\?x1x4x4"),
        (np.zeros((0, 1, 4, 4), np.float32), "SE606", "have shape 0x1x4x4"),
        (None, "SE402", "samples.npy, which is to hold samples, is not there"),
    ],
    ids=["shape", "none", "missing"],
)
def test_samples_that_do_not_fit_are_refused(array, code, words, empty):
    if array is not None:
        np.save("samples.npy", array)
    with pytest.raises(SesurgeryError, match=f"{code}.*{words}"):
        build(foreign(), **INT8, calibration={"file": "samples.npy"})


def test_samples_under_another_name_are_refused(empty):
    np.savez("samples.npz", image=np.zeros((4, 1, 4, 4), np.float32))
    with pytest.raises(SesurgeryError, match=r"SE606.*holds samples of image; the network's inputs are x"):
        build(foreign(), **INT8, calibration={"file": "samples.npz"})


def test_a_precision_that_the_backend_lacks_is_refused_before_anything_is_written(empty):
    with pytest.raises(
        SesurgeryError, match=r"SE603.*onnxruntime has no bf16 convolutions: it builds fp32, fp16, int8"
    ):
        build(foreign(), precision="bf16")
    assert not Path("export").exists()


def test_autocast_says_that_it_cannot_be_imported(empty, monkeypatch):
    monkeypatch.setattr(_autocast, "MODULE", "modelopt_that_is_not_there.onnx.autocast")
    with pytest.raises(SesurgeryError, match=r"SE603.*AutoCast cannot be imported here: No module named") as caught:
        build(foreign(), precision="fp16", converter="autocast")
    assert "nvidia-modelopt" in str(caught.value.diagnostics[0].hint)
    assert not Path("export").exists()


def test_autocast_converts_all_but_the_gates_where_it_can_be_imported(here):
    try:
        importlib.import_module(_autocast.MODULE)
    except Exception as error:
        pytest.skip(f"no AutoCast: {error}")
    build(RUN, precision="fp16", converter="autocast")
    said = details("export/tiny.onnxruntime.fp16.onnx")
    assert any(kept.kind == "gate" for kept in said.kept_fp32)


def test_the_gate_is_not_written_as_a_transposed_convolution_for_bf16_and_int8():
    for precision, expected in {"fp16": True, "bf16": False, "int8": False}.items():
        wanted = pipeline.engine({"backend": "tensorrt-rtx", "precision": precision})
        assert ("gate_epilogue" in passes_for(wanted.backend.options, wanted, None)) == expected


def test_no_gate_scales_weights_that_shall_be_int8():
    for precision, expected in {"fp32": True, "fp16": True, "bf16": True, "int8": False}.items():
        wanted = pipeline.engine({"backend": "tensorrt-rtx", "precision": precision})
        assert ("gate_weights" in passes_for(wanted.backend.options, wanted, None)) == expected


@pytest.mark.parametrize(
    ("backend", "precision", "hoisted", "pooled"),
    [
        # `python benchmarks/pass_pays.py precisions`: where it pays.
        ("onnxruntime", "fp32", True, True),
        ("onnxruntime", "fp16", False, False),
        ("onnxruntime", "int8", True, False),
        ("openvino", "bf16", True, False),
        ("openvino", "int8", False, False),
    ],
)
def test_passes_are_run_in_the_precisions_in_which_they_pay(backend, precision, hoisted, pooled):
    wanted = pipeline.engine({"backend": backend, "precision": precision})
    names = passes_for(wanted.backend.options, wanted, None)
    assert ("squeeze_hoist" in names, "squeeze_pool" in names) == (hoisted, pooled)


def test_an_fp16_engine_takes_and_gives_fp16_where_it_is_asked_for(here):
    built = build(RUN, precision="fp16", io="convert", name="half")
    with built_runner(built) as runner:
        assert [info.dtype for info in (*runner.inputs, *runner.outputs)] == ["float16", "float16"]
    assert pipeline.verify(built.path).failures == ()


def built_runner(built: BuildResult):
    return pipeline.engine({}).backend.options.load(built.path)


def test_the_command_of_an_engine_says_how_it_was_calibrated(empty):
    wanted = pipeline.engine({**INT8, "calibration": {"samples": 64, "method": "entropy"}, "io": "convert"})
    words = command(Path("net.onnx"), wanted)
    assert words.endswith("--int8 --calibration samples=64 --calibration method=entropy --io convert")
