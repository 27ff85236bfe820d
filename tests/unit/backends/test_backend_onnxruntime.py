"""The ONNX Runtime backend on a small network: what it builds, runs and refuses."""

import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.diagnostics import SesurgeryError
from sesurgery.onnxgraph import io as onnx_io

# Same kernels in another order of operations.
FP32_TOLERANCE = 1e-5
# fp16 weights have 11 bits; the outputs here are below 0.1.
FP16_TOLERANCE = 1e-3


@pytest.fixture
def engine(fp32: Path, tmp_path: Path) -> Path:
    OnnxRuntime().build(fp32, tmp_path / "engines" / "se.onnx", BuildOptions())
    return tmp_path / "engines" / "se.onnx"


def plain(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options).run(None, feeds)[0]


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_the_engine_answers_as_the_network_does_at_every_batch(batch, fp32, engine, images) -> None:
    with OnnxRuntime().load(engine) as runner:
        found = runner.infer(images(batch))
    assert found["y"].shape == (batch, 5)
    np.testing.assert_allclose(found["y"], plain(fp32, images(batch)), atol=FP32_TOLERANCE)


def test_the_optimised_file_gives_bit_for_bit_what_optimising_at_load_gives(fp32, engine, images) -> None:
    at_load = onnxruntime.InferenceSession(str(fp32)).run(None, images(3))[0]
    with OnnxRuntime().load(engine) as runner:
        np.testing.assert_array_equal(runner.infer(images(3))["y"], at_load)


def test_the_engine_is_the_optimised_graph_with_activations_fused_in(fp32: Path, engine: Path) -> None:
    def activations(path: Path) -> int:
        return sum(node.op_type == "Relu" for node in onnx.load(path).graph.node)

    assert activations(fp32) == 2
    assert activations(engine) == 0


def test_the_report_says_what_was_built(fp32: Path, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    report = OnnxRuntime().build(fp32, tmp_path / "e.onnx", BuildOptions(), lambda *step: said.append(step))
    assert report.convolutions == {"fp32": 3}
    assert report.seconds > 0
    assert len(report.notes) <= 1  # of the graph for single samples, where this processor has blocks of channels
    assert "core" in report.device
    assert said == [("optimising the graph", 0, 1), ("optimising the graph", 1, 1)]


def test_an_fp16_engine_says_that_its_kernels_compute_in_fp32(fp16: Path, fp32: Path, tmp_path: Path, images) -> None:
    report = OnnxRuntime().build(fp16, tmp_path / "e.onnx", BuildOptions(precision="fp16"))
    assert report.convolutions == {"fp16": 1, "fp32": 2}
    assert "3 of 3 convolutions of its optimised graph compute in fp32" in report.notes[0]
    with OnnxRuntime().load(tmp_path / "e.onnx") as runner:
        np.testing.assert_allclose(runner.infer(images(2))["y"], plain(fp32, images(2)), atol=FP16_TOLERANCE)


def test_a_fixed_batch_is_noted_and_kept(fixed_batch: Path, tmp_path: Path, images) -> None:
    report = OnnxRuntime().build(fixed_batch, tmp_path / "e.onnx", BuildOptions())
    assert report.notes[0] == "input 'x' has a fixed batch of 4 in the file: 1 to 64 does not apply"
    with (
        OnnxRuntime().load(tmp_path / "e.onnx") as runner,
        pytest.raises(SesurgeryError, match=r"SE606.*\[2, 3, 8, 8\], expected \[4, 3, 8, 8\]"),
    ):
        runner.infer(images(2))
    again = OnnxRuntime().build(fixed_batch, tmp_path / "e.onnx", BuildOptions(batch=BatchRange(4, 4, 4)))
    assert not any("fixed batch" in note for note in again.notes)


def test_weights_outside_the_file_end_up_in_the_engine(fp32: Path, tmp_path: Path, images) -> None:
    expected = plain(fp32, images(2))
    onnx.save(onnx.load(fp32), fp32, save_as_external_data=True, location="se.onnx.data", size_threshold=0)
    OnnxRuntime().build(fp32, tmp_path / "engines" / "e.onnx", BuildOptions())
    (tmp_path / "se.onnx.data").unlink()
    with OnnxRuntime().load(tmp_path / "engines" / "e.onnx") as runner:
        np.testing.assert_allclose(runner.infer(images(2))["y"], expected, atol=FP32_TOLERANCE)


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_an_engine_that_one_file_cannot_hold_keeps_its_weights_beside_it(provider, tmp_path, monkeypatch) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    graph = "net (float[batch, 64] x) => (float[batch, 64] y) { y = MatMul(x, w) }"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {graph}')
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    monkeypatch.setattr(onnx_io, "LIMIT", 4096)
    engine, backend = tmp_path / "engines" / "e.onnx", OnnxRuntime(provider=provider)
    backend.build(tmp_path / "net.onnx", engine, BuildOptions())
    assert sorted(path.name for path in engine.parent.iterdir()) == ["e.onnx", "e.onnx.data"]
    assert backend.beside(engine) == (engine.with_name("e.onnx.data"),)
    (tmp_path / "weights").unlink()
    image = np.ones((3, 64), np.float32)
    # What a GPU runs is run on the CPU here: the file has the same form.
    with OnnxRuntime().load(engine) as runner:
        np.testing.assert_allclose(runner.infer({"x": image})["y"], image @ weight, rtol=0, atol=FP32_TOLERANCE)


def test_building_prints_nothing(fp32: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    OnnxRuntime().build(fp32, tmp_path / "e.onnx", BuildOptions())
    OnnxRuntime().load(tmp_path / "e.onnx").close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("precision", "file", "code"), [("fp16", "fp32", "SE605"), ("fp32", "fp16", "SE605"), ("fp32", "garbage", "SE602")]
)
def test_nothing_is_written_when_a_build_fails(precision, file, code, tmp_path: Path, request) -> None:
    (tmp_path / "garbage.onnx").write_bytes(b"garbage")
    source = tmp_path / "garbage.onnx" if file == "garbage" else request.getfixturevalue(file)
    out = tmp_path / "engines" / "e.onnx"
    with pytest.raises(SesurgeryError, match=code):
        OnnxRuntime().build(source, out, BuildOptions(precision=precision))
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_a_failed_build_leaves_the_engine_before_it_alone_and_names_the_operator(make, engine: Path) -> None:
    before = engine.read_bytes()
    broken = make(
        "(float[batch,4] x) => (float[batch,4] y) { a = Relu(x)\n y = acme.Attention(a) }", domains='"": 20, "acme": 1'
    )
    with pytest.raises(SesurgeryError, match=r"SE604.*ONNX Runtime cannot build(.|\n)*acme"):
        OnnxRuntime().build(broken, engine, BuildOptions())
    assert engine.read_bytes() == before
    assert [path.name for path in engine.parent.iterdir()] == [engine.name]


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_an_engine_that_cannot_be_loaded_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "e.onnx").write_bytes(content)
    with pytest.raises(SesurgeryError, match=r"SE603.*e\.onnx"):
        OnnxRuntime().load(tmp_path / "e.onnx")


def test_inputs_and_outputs_are_described(engine: Path) -> None:
    with OnnxRuntime().load(engine) as runner:
        assert [(info.name, info.shape, info.dtype) for info in runner.inputs] == [("x", ("batch", 3, 8, 8), "float32")]
        assert [(info.name, info.shape, info.dtype) for info in runner.outputs] == [("y", ("batch", 5), "float32")]


def test_wrong_feeds_are_refused_when_inferring_and_when_timing(engine: Path) -> None:
    with OnnxRuntime().load(engine) as runner:
        for use in (runner.infer, lambda feeds: runner.time(feeds, 3)):
            with pytest.raises(SesurgeryError, match=r"SE606.*there is no input 'input'"):
                use({"input": np.ones((1, 3, 8, 8), np.float32)})


def test_timing_gives_a_positive_sample_of_each_run(engine: Path, images) -> None:
    with OnnxRuntime().load(engine, threads=1) as runner:
        started = time.perf_counter()
        samples = runner.time(images(2), 20)
        whole = time.perf_counter() - started
    assert samples.shape == (20,)
    assert (samples > 0).all()
    # Seconds, not another unit: all of them together took no longer than the call.
    assert samples.sum() <= whole


def test_timing_leaves_later_answers_alone(engine: Path, images) -> None:
    with OnnxRuntime().load(engine) as runner:
        before = runner.infer(images(2))["y"]
        runner.time(images(5), 3)
        np.testing.assert_array_equal(runner.infer(images(2))["y"], before)


def test_a_closed_runner_says_so_and_closes_twice(engine: Path, images) -> None:
    runner = OnnxRuntime().load(engine)
    runner.close()
    runner.close()
    with pytest.raises(SesurgeryError, match=r"SE603.*closed"):
        runner.infer(images(1))


def test_two_open_sizes_that_paddle_calls_a_question_mark_may_differ(tmp_path: Path) -> None:
    graph = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }'
    )
    for value in (*graph.graph.input, *graph.graph.output):
        for axis in (0, 2, 3):
            value.type.tensor_type.shape.dim[axis].dim_param = "?"
    onnx.save(graph, tmp_path / "net.onnx")
    OnnxRuntime().build(tmp_path / "net.onnx", tmp_path / "engine.onnx", BuildOptions())
    with OnnxRuntime().load(tmp_path / "engine.onnx") as runner:
        given = np.ones((2, 3, 8, 16), np.float32)
        assert runner.infer({"x": given})["y"].shape == given.shape
