"""The OpenVINO backend on a small network: what it builds, in which precision it really computes, what it refuses."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from sesurgery import pipeline
from sesurgery.backends import openvino as module
from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.openvino import OpenVINO
from sesurgery.diagnostics import SesurgeryError
from sesurgery.lowering.base import run
from sesurgery.lowering.precision.half import Precision
from sesurgery.profiles import parse_profile

pytest.importorskip("openvino")

# Same arithmetic in another order.
FP32_TOLERANCE = 1e-5
# fp16 weights have 11 bits, bf16 8; the outputs here are below 0.1.
TOLERANCE = {"fp16": 1e-3, "bf16": 5e-3}
BF16 = "BF16" in module.capabilities()


@pytest.fixture
def engine(fp32: Path, tmp_path: Path) -> Path:
    OpenVINO().build(fp32, tmp_path / "engines" / "se.xml", BuildOptions())
    return tmp_path / "engines" / "se.xml"


@pytest.fixture
def bf16(fp32: Path, tmp_path: Path) -> Path:
    onnx.save(run(onnx.load(fp32), [Precision(target="bf16")]).model, tmp_path / "se.bf16.onnx")
    return tmp_path / "se.bf16.onnx"


def plain(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options).run(None, feeds)[0]


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_the_engine_answers_as_the_network_does_at_every_batch(batch, fp32, engine, images) -> None:
    with OpenVINO().load(engine) as runner:
        found = runner.infer(images(batch))
    assert found["y"].shape == (batch, 5)
    np.testing.assert_allclose(found["y"], plain(fp32, images(batch)), atol=FP32_TOLERANCE)


def test_the_engine_needs_neither_the_onnx_file_nor_its_weights(fp32: Path, tmp_path: Path, images) -> None:
    expected = plain(fp32, images(2))
    onnx.save(onnx.load(fp32), fp32, save_as_external_data=True, location="se.onnx.data", size_threshold=0)
    OpenVINO().build(fp32, tmp_path / "engines" / "e.xml", BuildOptions())
    fp32.unlink()
    (tmp_path / "se.onnx.data").unlink()
    with OpenVINO().load(tmp_path / "engines" / "e.xml") as runner:
        np.testing.assert_allclose(runner.infer(images(2))["y"], expected, atol=FP32_TOLERANCE)
    assert OpenVINO().beside(tmp_path / "engines" / "e.xml") == (tmp_path / "engines" / "e.bin",)


def test_the_report_counts_what_the_convolutions_compute_in(fp32: Path, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    report = OpenVINO().build(fp32, tmp_path / "e.xml", BuildOptions(), lambda *step: said.append(step))
    assert report.convolutions == {"fp32": 3}
    assert report.seconds > 0
    assert report.notes == ()
    assert "core" in report.device
    assert said[-1] == ("compiling", 2, 2)


@pytest.mark.skipif(not BF16, reason="left to itself, OpenVINO takes bf16 only where the processor has it")
def test_an_fp32_engine_is_fp32_where_openvino_left_to_itself_takes_bf16(engine: Path, fp32: Path, images) -> None:
    core = module.core()
    by_default = core.compile_model(core.read_model(engine), "CPU")
    assert module.computed_in(by_default) == {"bf16": 3}
    with OpenVINO().load(engine) as runner:
        error = np.abs(runner.infer(images(4))["y"] - plain(fp32, images(4))).max()
    drifted = np.abs(by_default(images(4))[0] - plain(fp32, images(4))).max()
    assert error < drifted / 10


@pytest.mark.skipif(not BF16, reason="this processor has no bf16")
def test_a_bf16_engine_computes_in_bf16_and_says_that_the_gates_do_too(bf16: Path, fp32, tmp_path: Path, images):
    report = OpenVINO().build(bf16, tmp_path / "e.xml", BuildOptions(precision="bf16"))
    assert report.convolutions == {"bf16": 3}
    assert "the gates too" in report.notes[0]
    with OpenVINO().load(tmp_path / "e.xml") as runner:
        found, expected = runner.infer(images(2))["y"], plain(fp32, images(2))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE["bf16"])
    assert np.abs(found - expected).max() > FP32_TOLERANCE


def test_bf16_is_refused_where_the_processor_has_none(bf16: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "capabilities", lambda: frozenset({"FP32", "INT8"}))
    with pytest.raises(SesurgeryError, match=r"SE603.*this processor has no bf16"):
        OpenVINO().build(bf16, tmp_path / "engines" / "e.xml", BuildOptions(precision="bf16"))
    assert not (tmp_path / "engines").exists()


@pytest.mark.skipif(not BF16, reason="there is no bf16 engine to carry here")
def test_a_bf16_engine_is_not_run_where_the_processor_has_none(bf16: Path, tmp_path: Path, monkeypatch) -> None:
    OpenVINO().build(bf16, tmp_path / "e.xml", BuildOptions(precision="bf16"))
    monkeypatch.setattr(module, "capabilities", lambda: frozenset({"FP32", "INT8"}))
    with pytest.raises(SesurgeryError, match=r"SE603.*computes in bf16, which this processor does not have"):
        OpenVINO().load(tmp_path / "e.xml")


@pytest.mark.skipif("FP16" in module.capabilities(), reason="this processor has fp16")
def test_an_fp16_engine_says_that_it_computes_in_fp32(fp16: Path, fp32: Path, tmp_path: Path, images) -> None:
    report = OpenVINO().build(fp16, tmp_path / "e.xml", BuildOptions(precision="fp16"))
    assert report.convolutions == {"fp32": 3}
    assert report.notes == ("this processor has no fp16: all of it computes in fp32, from weights rounded to fp16",)
    with OpenVINO().load(tmp_path / "e.xml") as runner:
        np.testing.assert_allclose(runner.infer(images(2))["y"], plain(fp32, images(2)), atol=TOLERANCE["fp16"])


def test_a_compiled_network_in_another_precision_is_refused(fp32: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "computed_in", lambda compiled: {"fp32": 2, "bf16": 1})
    with pytest.raises(SesurgeryError, match=r"SE605.*1 bf16, 2 fp32"):
        OpenVINO().build(fp32, tmp_path / "engines" / "e.xml", BuildOptions())
    assert list((tmp_path / "engines").iterdir()) == []


def test_an_engine_takes_the_batches_it_was_built_for_and_no_other(fp32: Path, tmp_path: Path, images) -> None:
    OpenVINO().build(fp32, tmp_path / "e.xml", BuildOptions(batch=BatchRange(2, 4, 8)))
    with OpenVINO().load(tmp_path / "e.xml") as runner:
        assert runner.infer(images(8))["y"].shape == (8, 5)
        for batch in (1, 9):
            with pytest.raises(SesurgeryError, match=f"SE606.*has batch {batch}, the engine was built for 2 to 8"):
                runner.infer(images(batch))


def test_profiles_bound_what_the_file_leaves_open(make: Callable[..., Path], tmp_path: Path) -> None:
    source = make("(float[batch,3,h,w] x) => (float[batch,3,h,w] y) { y = Relu(x) }", "open.onnx")
    profiles = (parse_profile("x=1,2,4x3x8,16,32x8,16,32"), parse_profile("x=1,1,1x3x64x64"))
    OpenVINO().build(source, tmp_path / "e.xml", BuildOptions(profiles=profiles))
    with OpenVINO().load(tmp_path / "e.xml") as runner:
        assert runner.infer({"x": np.ones((1, 3, 64, 64), np.float32)})["y"].shape == (1, 3, 64, 64)
        with pytest.raises(SesurgeryError, match=r"SE606.*dim2 65, the engine was built for 8 to 64"):
            runner.infer({"x": np.ones((1, 3, 65, 64), np.float32)})
    with pytest.raises(SesurgeryError, match=r"SE604.*a profile names input 'z', the file has x"):
        OpenVINO().build(source, tmp_path / "e.xml", BuildOptions(profiles=(parse_profile("z=1x3x8x8"),)))


def test_a_fixed_batch_is_noted_and_kept(fixed_batch: Path, tmp_path: Path, images) -> None:
    report = OpenVINO().build(fixed_batch, tmp_path / "e.xml", BuildOptions())
    assert report.notes == ("input 'x' has a fixed batch of 4 in the file: 1 to 64 does not apply",)
    with (
        OpenVINO().load(tmp_path / "e.xml") as runner,
        pytest.raises(SesurgeryError, match=r"SE606.*\[2, 3, 8, 8\], expected \[4, 3, 8, 8\]"),
    ):
        runner.infer(images(2))


def test_building_and_running_print_nothing(fp32: Path, tmp_path: Path, images, capfd) -> None:
    OpenVINO().build(fp32, tmp_path / "e.xml", BuildOptions())
    with OpenVINO().load(tmp_path / "e.xml") as runner:
        runner.infer(images(1))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("precision", "file", "code"), [("fp16", "fp32", "SE605"), ("fp32", "fp16", "SE605"), ("fp32", "garbage", "SE602")]
)
def test_nothing_is_written_when_a_build_fails(precision, file, code, tmp_path: Path, request) -> None:
    (tmp_path / "garbage.onnx").write_bytes(b"garbage")
    source = tmp_path / "garbage.onnx" if file == "garbage" else request.getfixturevalue(file)
    with pytest.raises(SesurgeryError, match=code):
        OpenVINO().build(source, tmp_path / "engines" / "e.xml", BuildOptions(precision=precision))
    assert not (tmp_path / "engines").exists()


def test_a_failed_build_leaves_the_engine_before_it_alone_and_names_the_operator(make, engine: Path) -> None:
    before = {path.name: path.read_bytes() for path in engine.parent.iterdir()}
    broken = make(
        "(float[batch,4] x) => (float[batch,4] y) { a = Relu(x)\n y = acme.Attention(a) }", domains='"": 20, "acme": 1'
    )
    with pytest.raises(SesurgeryError, match=r"SE604.*OpenVINO cannot build(.|\n)*acme"):
        OpenVINO().build(broken, engine, BuildOptions())
    assert {path.name: path.read_bytes() for path in engine.parent.iterdir()} == before


@pytest.mark.parametrize("content", [b"", b"garbage", b"<?xml version='1.0'?><net/>"])
def test_an_engine_that_cannot_be_loaded_is_named(content: bytes, engine: Path) -> None:
    engine.write_bytes(content)
    with pytest.raises(SesurgeryError, match=r"SE603.*se\.xml"):
        OpenVINO().load(engine)


def test_half_an_engine_is_named(engine: Path) -> None:
    engine.with_suffix(".bin").unlink()
    with pytest.raises(SesurgeryError, match=r"SE402.*se\.bin is not there"):
        OpenVINO().load(engine)


def test_the_weights_are_not_rounded_on_the_way(fp32: Path, engine: Path) -> None:
    text = engine.read_text()
    assert "FP16" not in text
    assert re.search(r'inference_precision value="f32"', text)


def test_inputs_and_outputs_are_described(engine: Path) -> None:
    with OpenVINO().load(engine) as runner:
        assert [(info.name, info.shape, info.dtype) for info in runner.inputs] == [("x", ("batch", 3, 8, 8), "float32")]
        assert [(info.name, info.shape, info.dtype) for info in runner.outputs] == [("y", ("batch", 5), "float32")]


def test_wrong_feeds_are_refused_when_inferring_and_when_timing(engine: Path) -> None:
    with OpenVINO().load(engine) as runner:
        for use in (runner.infer, lambda feeds: runner.time(feeds, 3)):
            with pytest.raises(SesurgeryError, match=r"SE606.*there is no input 'input'"):
                use({"input": np.ones((1, 3, 8, 8), np.float32)})


def test_timing_gives_a_positive_sample_of_each_run_and_leaves_later_answers_alone(engine: Path, images) -> None:
    with OpenVINO().load(engine, threads=1) as runner:
        before = runner.infer(images(2))["y"]
        started = time.perf_counter()
        samples = runner.time(images(5), 20)
        whole = time.perf_counter() - started
        np.testing.assert_array_equal(runner.infer(images(2))["y"], before)
    assert samples.shape == (20,)
    assert (samples > 0).all()
    # Seconds, not another unit: all of them together took no longer than the call.
    assert samples.sum() <= whole


def test_an_answer_is_the_callers_to_keep(engine: Path, images) -> None:
    with OpenVINO().load(engine) as runner:
        first = runner.infer(images(2))["y"]
        before = first.copy()
        runner.infer(images(3))
        runner.infer({"x": 2 * images(2)["x"]})
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize(("given", "asked"), [(None, 1), (2, 2)])
def test_threads_are_the_callers_or_else_the_options(given, asked, engine: Path, monkeypatch) -> None:
    configs = []
    compile_ = module.compile_network

    def watched(model, hint, threads):
        compiled = compile_(model, hint, threads)
        configs.append(compiled.get_property("INFERENCE_NUM_THREADS"))
        return compiled

    monkeypatch.setattr(module, "compile_network", watched)
    OpenVINO(threads=1).load(engine, given).close()
    assert configs == [asked]


def test_a_closed_runner_says_so_and_closes_twice(engine: Path, images) -> None:
    runner = OpenVINO().load(engine)
    runner.close()
    runner.close()
    with pytest.raises(SesurgeryError, match=r"SE603.*closed"):
        runner.infer(images(1))


def test_without_the_package_it_says_how_to_get_it(fp32: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert OpenVINO().probe().builds == "OpenVINO is not installed"
    with pytest.raises(SesurgeryError, match=r"SE603.*not installed(.|\n)*sesurgery\[openvino\]"):
        OpenVINO().build(fp32, tmp_path / "e.xml", BuildOptions())
    with pytest.raises(SesurgeryError, match=r"SE603.*not installed"):
        OpenVINO().load(tmp_path / "e.xml")


def test_an_int8_engine_computes_in_int8_but_for_the_gate(fp32: Path, tmp_path: Path, images, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("samples.npz", **images(64))
    asked = {"backend": "openvino", "precision": "int8", "calibration": {"file": "samples.npz"}}
    built = pipeline.build_engine(pipeline.BuildRequest(fp32, pipeline.engine(asked), pipeline.Workspace()))
    assert built.report.convolutions == {"int8": 1, "fp32": 2}
    with OpenVINO().load(built.path) as runner:
        found, expected = runner.infer(images(3))["y"], plain(fp32, images(3))
    # 8 bits of the largest value, through a pooled sum.
    assert FP32_TOLERANCE < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
