"""TensorRT and TensorRT-RTX on a GPU: built, run at every batch of the profile, timed, against ONNX Runtime."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sesurgery.backends import BACKENDS
from sesurgery.backends.base import BatchRange, BuildOptions
from sesurgery.backends.nvidia import inspector
from sesurgery.diagnostics import SesurgeryError
from sesurgery.lowering.base import run
from sesurgery.lowering.precision.half import Precision
from sesurgery.profiles import parse_profile

pytestmark = pytest.mark.gpu

# TF32 is off, so fp32 differs by the order of its sums; fp16 by its 11 bits. Relative to the largest output.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
BATCH = BatchRange(1, 4, 16)

SE = """<ir_version: 10, opset_import: ["": 20]> g (float[batch,3,32,32] x) => (float[batch,32,32,32] y) <
    float[32,3,3,3] stem, float[8,32,1,1] down, float[32,8,1,1] up
> {
    s = Conv<pads=[1,1,1,1]>(x, stem)
    m = Relu(s)
    squeeze = GlobalAveragePool(m)
    hidden = Conv(squeeze, down)
    active = Relu(hidden)
    raised = Conv(active, up)
    gate = Sigmoid(raised)
    y = Mul(m, gate)
}"""


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def backend(request: pytest.FixtureRequest):
    made = BACKENDS.load(request.param)()
    found = made.probe()
    if (reason := found.builds or found.runs) is not None:
        pytest.skip(reason)
    return made


@pytest.fixture
def networks(tmp_path: Path) -> dict[str, Path]:
    model = onnx.parser.parse_model(SE)
    random = np.random.default_rng(0)
    for weight in model.graph.value_info:
        shape = [dim.dim_value for dim in weight.type.tensor_type.shape.dim]
        model.graph.initializer.append(
            numpy_helper.from_array(random.normal(0, 0.3, shape).astype(np.float32), weight.name)
        )
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "net.onnx")
    onnx.save(run(model, [Precision()]).model, tmp_path / "net.fp16.onnx")
    return {"fp32": tmp_path / "net.onnx", "fp16": tmp_path / "net.fp16.onnx"}


def images(batch: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(batch).normal(size=(batch, 3, 32, 32)).astype(np.float32)}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_answers_as_onnx_runtime_does_at_every_batch(backend, precision, networks, tmp_path: Path) -> None:
    reference = BACKENDS.load("onnxruntime")()
    reference.build(networks["fp32"], tmp_path / "reference.onnx", BuildOptions())
    backend.build(networks[precision], tmp_path / "net.engine", BuildOptions(precision=precision, batch=BATCH))
    with reference.load(tmp_path / "reference.onnx") as expecting, backend.load(tmp_path / "net.engine") as runner:
        for batch in (16, 1, 4, 7):
            expected, found = expecting.infer(images(batch))["y"], runner.infer(images(batch))["y"]
            assert np.abs(found - expected).max() <= TOLERANCE[precision] * np.abs(expected).max()


def test_a_batch_outside_the_profile_is_refused(backend, networks, tmp_path: Path) -> None:
    backend.build(networks["fp32"], tmp_path / "net.engine", BuildOptions(batch=BATCH))
    with (
        backend.load(tmp_path / "net.engine") as runner,
        pytest.raises(SesurgeryError, match=r"SE606.*has batch 17, the engine was built for 1 to 16"),
    ):
        runner.infer(images(17))


def test_timing_gives_a_positive_sample_of_each_run(backend, networks, tmp_path: Path) -> None:
    backend.build(networks["fp16"], tmp_path / "net.engine", BuildOptions(precision="fp16", batch=BATCH))
    with backend.load(tmp_path / "net.engine") as runner:
        samples = runner.time(images(4), 200)
    assert samples.shape == (200,)
    assert (samples > 0).all()


def test_an_engine_that_is_none_is_refused_with_a_reason(backend, tmp_path: Path) -> None:
    (tmp_path / "net.engine").write_bytes(b"garbage")
    with pytest.raises(SesurgeryError, match=r"SE603.*cannot load the engine"):
        backend.load(tmp_path / "net.engine")


def test_two_profiles_serve_all_their_shapes(backend, networks, tmp_path: Path) -> None:
    shapes = ("x=1,1,4x3x32x32", "x=5,16,16x3x32x32")
    options = BuildOptions(profiles=tuple(parse_profile(text) for text in shapes))
    backend.build(networks["fp32"], tmp_path / "two.engine", options)
    reference = BACKENDS.load("onnxruntime")()
    reference.build(networks["fp32"], tmp_path / "reference.onnx", BuildOptions())
    with reference.load(tmp_path / "reference.onnx") as expecting, backend.load(tmp_path / "two.engine") as runner:
        for batch in (1, 4, 5, 16, 2, 16, 16, 16):
            expected, found = expecting.infer(images(batch))["y"], runner.infer(images(batch))["y"]
            assert np.abs(found - expected).max() <= TOLERANCE["fp32"] * np.abs(expected).max()
        with pytest.raises(SesurgeryError, match=r"SE606.*no profile of the engine takes input 'x' of shape \[17"):
            runner.infer(images(17))


def test_a_graph_gives_what_plain_runs_give_at_every_batch(backend, networks, tmp_path: Path) -> None:
    backend.build(networks["fp32"], tmp_path / "net.engine", BuildOptions(batch=BATCH))
    plain = replace(backend, cuda_graph=False)
    with backend.load(tmp_path / "net.engine") as graph, plain.load(tmp_path / "net.engine") as runner:
        for batch in (4, 4, 4, 7, 7, 4, 4):
            np.testing.assert_array_equal(graph.infer(images(batch))["y"], runner.infer(images(batch))["y"])


def test_two_contexts_end_in_any_order(backend, networks, tmp_path: Path) -> None:
    backend.build(networks["fp32"], tmp_path / "net.engine", BuildOptions(batch=BATCH))
    for first in (0, 1):
        runners = [backend.load(tmp_path / "net.engine")]
        runners.append(runners[0].another())
        answers = [runner.infer(images(3))["y"] for runner in runners]
        np.testing.assert_array_equal(*answers)
        runners[first].close()
        np.testing.assert_array_equal(runners[1 - first].infer(images(3))["y"], answers[0])
        runners[1 - first].close()


def test_what_is_on_the_gpu_is_taken_from_there(backend, networks, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    backend.build(networks["fp32"], tmp_path / "net.engine", BuildOptions(batch=BATCH))
    given = images(4)
    with backend.load(tmp_path / "net.engine") as runner:
        expected = runner.infer(given)["y"]
        there = torch.from_numpy(given["x"]).cuda()
        np.testing.assert_array_equal(runner.infer({"x": there})["y"], expected)


def test_timings_add_up(backend, networks, tmp_path: Path) -> None:
    backend.build(networks["fp16"], tmp_path / "net.engine", BuildOptions(precision="fp16", batch=BATCH))
    with backend.load(tmp_path / "net.engine") as runner:
        found = runner.timings(images(16), 50)
    assert all((part > 0).all() for part in (found.host_to_device, found.compute, found.device_to_host, found.enqueue))
    assert found.latency.sum() <= found.wall
    assert "GPU compute" in str(found)


def test_the_inspector_tells_the_kernels_of_a_detailed_engine(backend, networks, tmp_path: Path) -> None:
    detailed = replace(backend, detailed=True)
    detailed.build(networks["fp16"], tmp_path / "net.engine", BuildOptions(precision="fp16", batch=BATCH))
    found = inspector.parse(detailed.inspected(tmp_path / "net.engine"), 4)
    assert found.kernels
    assert found.traffic > 0


def test_a_timing_cache_is_written_and_used_again(networks, tmp_path: Path) -> None:
    made = BACKENDS.load("tensorrt")()
    if (reason := made.probe().builds) is not None:
        pytest.skip(reason)
    made.build(networks["fp32"], tmp_path / "one.engine", BuildOptions(batch=BATCH))
    (cache,) = (tmp_path / ".timing").glob("*.cache")
    size = cache.stat().st_size
    assert size > 0
    report = made.build(networks["fp32"], tmp_path / "two.engine", BuildOptions(batch=BATCH))
    assert not any("timing cache" in note for note in report.notes)
    assert cache.stat().st_size >= size


@pytest.mark.parametrize("option", ["refit", "stripped", "version_compatible", "tf32"])
def test_an_option_gives_an_engine(backend, option: str, networks, tmp_path: Path) -> None:
    if (backend.title, option) == ("TensorRT-RTX", "version_compatible"):
        pytest.skip("TensorRT-RTX has no lean runtime to put into an engine")
    made = with_options(backend, **{option: True})
    report = made.build(networks["fp32"], tmp_path / "net.engine", BuildOptions(batch=BATCH))
    assert any("no weights" in note for note in report.notes) == (option == "stripped")
    with made.load(tmp_path / "net.engine", weights=networks["fp32"] if option == "stripped" else None) as runner:
        assert np.isfinite(runner.infer(images(2))["y"]).all()


# --- weights ----------------------------------------------------------------------------------------------------------

WIDE = """<ir_version: 10, opset_import: ["": 20]> g (float[batch,32,8,8] x) => (float[batch,512,8,8] y) <
    float[512,32,3,3] stem, float[8,512,1,1] down, float[512,8,1,1] up
> {""" + SE.partition("> {")[2]


def with_options(backend, **options):
    """TensorRT-RTX compiles an engine that takes weights for one kind of GPU at a time."""
    if backend.title == "TensorRT-RTX" and (options.get("refit") or options.get("stripped")):
        options["capabilities"] = ("CURRENT",)
    return replace(backend, **options)


@pytest.fixture
def wide(tmp_path: Path) -> list[Path]:
    """One network with weights of 0.6 MB, twice, with others in the second."""
    files = []
    for seed in (0, 1):
        model = onnx.parser.parse_model(WIDE)
        random = np.random.default_rng(seed)
        for weight in model.graph.value_info:
            shape = [dim.dim_value for dim in weight.type.tensor_type.shape.dim]
            values = random.normal(0, 0.1, shape).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(values, weight.name))
        del model.graph.value_info[:]
        files.append(tmp_path / f"wide{seed}.onnx")
        onnx.save(model, files[-1])
    return files


def answers_as(runner, source: Path) -> bool:
    feeds = {"x": np.random.default_rng(5).normal(size=(3, 32, 8, 8)).astype(np.float32)}
    with BACKENDS.load("onnxruntime")().load(source) as reference:
        expected = reference.infer(feeds)["y"]
    return bool(np.abs(runner.infer(feeds)["y"] - expected).max() <= TOLERANCE["fp32"] * np.abs(expected).max())


def test_a_stripped_engine_is_small_and_answers_with_the_weights_of_its_file(backend, wide, tmp_path: Path) -> None:
    options = BuildOptions(batch=BATCH)
    made = with_options(backend, stripped=True)
    replace(made, stripped=False).build(wide[0], tmp_path / "whole.engine", options)
    made.build(wide[0], tmp_path / "stripped.engine", options)
    sizes = [(tmp_path / f"{name}.engine").stat().st_size for name in ("whole", "stripped")]
    assert sizes[0] - sizes[1] > 400_000, sizes
    with made.load(tmp_path / "stripped.engine", weights=wide[0]) as runner:
        assert answers_as(runner, wide[0])
    made.put_weights(tmp_path / "stripped.engine", wide[0], tmp_path / "full.engine")
    with replace(made, stripped=False).load(tmp_path / "full.engine") as runner:
        assert answers_as(runner, wide[0])


def test_an_engine_takes_other_weights_again_and_again(backend, wide, tmp_path: Path) -> None:
    made = with_options(backend, refit=True)
    made.build(wide[0], tmp_path / "0.engine", BuildOptions(batch=BATCH))
    for step, source in ((1, wide[1]), (2, wide[0])):
        made.put_weights(tmp_path / f"{step - 1}.engine", source, tmp_path / f"{step}.engine")
        with made.load(tmp_path / f"{step}.engine") as runner:
            assert answers_as(runner, source)
            assert not answers_as(runner, wide[1 - wide.index(source)])


def test_weights_that_are_missing_are_named_and_nothing_is_written(backend, wide, tmp_path: Path) -> None:
    made = with_options(backend, refit=True)
    made.build(wide[0], tmp_path / "net.engine", BuildOptions(batch=BATCH))
    model = onnx.load(wide[0])
    next(tensor for tensor in model.graph.initializer if tensor.name == "down").name = "elsewhere"
    next(node for node in model.graph.node if "down" in node.input).input[1] = "elsewhere"
    onnx.save(model, tmp_path / "wrong.onnx")
    with pytest.raises(SesurgeryError, match=r"SE604.*does not take the weights of .*missing: .*'down'"):
        made.put_weights(tmp_path / "net.engine", tmp_path / "wrong.onnx", tmp_path / "out.engine")
    assert not (tmp_path / "out.engine").exists()


def test_an_engine_that_was_not_built_for_it_takes_no_weights(backend, wide, tmp_path: Path) -> None:
    backend.build(wide[0], tmp_path / "net.engine", BuildOptions(batch=BATCH))
    with pytest.raises(SesurgeryError, match=r"SE603.*was not built to take weights"):
        backend.put_weights(tmp_path / "net.engine", wide[0], tmp_path / "out.engine")
