"""How many bits weights take and why; what is said of kernels that are right, are wrong, or cannot be asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.engines import source_of
from fixtures.talk import RecordingTalk

from sesurgery import pipeline
from sesurgery.backends import BACKENDS
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline import EnginesRequest, Workspace
from sesurgery.pipeline.build_engine import lowered
from sesurgery.pipeline.build_engine.building import BuildResult
from sesurgery.pipeline.build_engine.request import command
from sesurgery.verification import weight_bits
from sesurgery.verification.integer_kernels import IntegerReport, LayerGap
from sesurgery.workspace import read_manifest
from sesurgery.workspace.details import Int8Weights

NET = """
<ir_version: 10, opset_import: ["": 20]>
net (float[batch, 2, 4, 4] x) => (float[batch, 2, 4, 4] y)
<float[2, 2, 1, 1] w = {1,-2,3,4}> { c = Conv(x, w) y = Relu(c) }
"""


@pytest.mark.parametrize(
    ("backend", "asked", "bits", "why"),
    [
        ("onnxruntime", "auto", 7, "the file is for any processor, and without VNNI"),
        ("openvino", "auto", 7, "the file is for any processor, and without VNNI"),
        ("tensorrt", "auto", 8, "a GPU adds products of 8-bit values in 32 bits"),
        ("tensorrt-rtx", "auto", 8, "a GPU adds products of 8-bit values in 32 bits"),
        ("onnxruntime", 8, 8, "asked for; right only on processors with VNNI"),
        ("onnxruntime", 7, 7, "asked for"),
        ("tensorrt", 7, 7, "asked for"),
        ("tensorrt", 8, 8, "asked for"),
    ],
)
def test_weights_take_7_bits_where_some_processor_may_add_pairs_in_16(backend, asked, bits, why):
    choice = weight_bits.choose(BACKENDS.load(backend)(), asked)
    assert choice.bits == bits
    assert choice.why.startswith(why)


def build(talk: RecordingTalk | None = None, **wanted: object) -> BuildResult:
    onnx.save(onnx.parser.parse_model(NET), "net.onnx")
    np.save("samples.npy", np.random.default_rng(0).uniform(0, 1, size=(8, 2, 4, 4)).astype(np.float32))
    asked = {"precision": "int8", **wanted}
    asked["calibration"] = {"file": "samples.npy", **asked.get("calibration", {})}
    (built,) = pipeline.build_engines(
        EnginesRequest(Path("net.onnx"), Workspace(), (pipeline.engine(asked),), talk=talk or RecordingTalk())
    )
    return built


def largest_weight(path: Path) -> int:
    tensors = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    return max(int(np.abs(array).max()) for array in tensors if array.dtype == np.int8 and array.ndim == 4)


def test_the_choice_and_its_reason_are_said_and_are_in_both_manifests(empty):
    talk = RecordingTalk()
    built = build(talk)
    proof = "1 layers on 8 samples are at most 0 steps of 8 bits from float"
    assert f"weights in 7 bits: {weight_bits.ANY_PROCESSOR}" in talk.said
    assert f"integer kernels: {proof}" in talk.said
    written = {"bits": 7, "why": weight_bits.ANY_PROCESSOR, "kernels": proof}
    assert built.manifest.details.int8_weights == Int8Weights(**written)
    source = source_of(built)
    assert read_manifest(source).details.int8_weights == Int8Weights(**written)
    assert largest_weight(source) == 64


def test_8_bits_are_written_where_they_are_asked_for_beside_the_file_of_7(empty):
    eight = {"calibration": {"weights": 8}}
    built = build(**eight)
    assert built.manifest.details.int8_weights.bits == 8
    assert largest_weight(source_of(built)) == 127
    words = command(Path("net.onnx"), pipeline.engine({"precision": "int8", **eight}))
    assert words.endswith("--calibration weights=8")


@pytest.mark.parametrize(
    ("backend", "kind"),
    [("openvino", "int8"), ("onnxruntime", "onnxruntime.int8"), ("tensorrt", "tensorrt.int8")],
)
def test_files_whose_weights_differ_in_bits_have_names_of_their_own(backend, kind):
    wanted = pipeline.engine({"backend": backend, "precision": "int8"})
    request = pipeline.BuildRequest(Path("net.onnx"), wanted, pipeline.Workspace())
    assert lowered.label_of(request, changed=False, single=False) == kind


def test_kernels_that_add_in_32_bits_are_not_compared(empty):
    if BACKENDS.load("tensorrt-rtx")().probe().builds is not None:
        pytest.skip("TensorRT-RTX cannot build here")
    talk = RecordingTalk()
    built = build(talk, backend="tensorrt-rtx")
    assert largest_weight(source_of(built)) == 127
    assert "integer kernels: a GPU adds products of 8-bit values in 32 bits" in talk.said


@pytest.mark.parametrize(("bits", "hint"), [(8, "let weights take 7"), (7, "report this network and the processor")])
def test_kernels_that_part_from_float_are_refused_and_nothing_is_written(empty, monkeypatch, bits, hint):
    layers = (LayerGap("Conv_0", "layer1.conv1", 1.0), LayerGap("Conv_1", "layer1.conv2", 87.0))
    monkeypatch.setattr(weight_bits, "compare_kernels", lambda *given: IntegerReport(layers, 8))
    with pytest.raises(SesurgeryError) as caught:
        build(calibration={"weights": bits})
    assert caught.value.diagnostics[0].code == "SE605"
    assert caught.value.diagnostics[0].message == (
        "the integer kernels of onnxruntime on this processor compute layer 'Conv_1' (in layer1.conv2) "
        "87 steps of 8 bits from the same layer in float; rounding explains 2"
    )
    assert hint in caught.value.diagnostics[0].hint
    assert [path for folder in ("export", "engines") for path in Path(folder).glob("net*")] == []


def test_an_engine_that_cannot_run_here_is_not_compared_and_says_so(empty):
    talk = RecordingTalk()
    build(talk, backend={"backend": "onnxruntime", "provider": "cuda"})
    assert any(text.startswith("integer kernels: onnxruntime cannot run here: ") for text in talk.said)
