"""`package`: a model repository that Triton's own schema reads, whose files answer as the engine does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format

from sesurgery import pipeline, temporaries
from sesurgery.backends import BACKENDS
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.backends.openvino import OpenVINO
from sesurgery.diagnostics import SesurgeryError
from sesurgery.pipeline import EnginesRequest
from sesurgery.serving import triton as served
from sesurgery.workspace import manifest_path, read_manifest, require_intact

triton = pytest.importorskip("tritonclient.grpc.model_config_pb2")

ONNX, XML = Path("engines/tiny.onnxruntime.fp32.onnx"), Path("engines/tiny.openvino.fp32.xml")
REPOSITORY = Path("triton")


def config(name: str = "tiny"):
    """The configuration as the server's own schema reads it; it raises on any field that is not one."""
    return text_format.Parse((REPOSITORY / name / "config.pbtxt").read_text(), triton.ModelConfig())


def domains(graph: onnx.GraphProto) -> set[str]:
    """Whose operators a graph has, those of its branches among them."""
    inner = (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return {node.domain for node in graph.node}.union(*(domains(branch) for branch in inner))


def build(**asked: object) -> Path:
    (built,) = pipeline.build_engines(
        EnginesRequest(Path("runs/tiny"), pipeline.Workspace(), (pipeline.engine(asked),))
    )
    return built.path


def test_the_configuration_says_what_the_engine_takes_and_answers(here: Path) -> None:
    pipeline.package(ONNX, REPOSITORY)
    found = config()
    assert (found.name, found.backend, found.max_batch_size) == ("tiny", "onnxruntime", 16)
    assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in found.input] == [
        ("input", triton.TYPE_FP32, [1, 8, 8])
    ]
    assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in found.output] == [
        ("logits", triton.TYPE_FP32, [10])
    ]
    assert list(found.dynamic_batching.preferred_batch_size) == [4]
    assert found.dynamic_batching.max_queue_delay_microseconds > 0
    assert [group.kind for group in found.instance_group] == [triton.ModelInstanceGroup.KIND_CPU]


def test_classes_have_their_names(here: Path) -> None:
    pipeline.package(ONNX, REPOSITORY)
    assert config().output[0].label_filename == "labels.txt"
    assert (REPOSITORY / "tiny" / "labels.txt").read_text().splitlines() == list("0123456789")


def test_the_packaged_file_answers_as_the_engine_and_runs_elsewhere(here: Path) -> None:
    done = pipeline.package(ONNX, REPOSITORY)
    (file,) = done.files
    assert file == REPOSITORY / "tiny" / "1" / "model.onnx"
    # No operator of this processor's kind: those are in the engine, and mean nothing to another ONNX Runtime.
    assert domains(onnx.load(file).graph) == {""}
    assert domains(onnx.load(ONNX).graph) - {""}
    assert "optimises for its own" in done.notes[0]
    feeds = {"input": np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)}
    with OnnxRuntime().load(ONNX) as engine, OnnxRuntime().load(file) as served:
        np.testing.assert_allclose(served.infer(feeds)["logits"], engine.infer(feeds)["logits"], atol=1e-4)


def test_openvino_comes_as_two_files_and_takes_batches_as_they_come(here: Path) -> None:
    done = pipeline.package(XML, REPOSITORY)
    assert [path.name for path in done.files] == ["model.xml", "model.bin"]
    found = config()
    assert (found.backend, found.max_batch_size, list(found.input[0].dims)) == ("openvino", 0, [-1, 1, 8, 8])
    assert not found.HasField("dynamic_batching")
    assert "HINT_BF16" not in found.parameters
    assert any("cannot be told to compute in fp32" in note for note in done.notes)
    feeds = {"input": np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)}
    with OpenVINO().load(XML) as engine, OpenVINO().load(done.files[0]) as served:
        np.testing.assert_array_equal(served.infer(feeds)["logits"], engine.infer(feeds)["logits"])


def test_a_packaged_engine_knows_where_it_came_from(here: Path) -> None:
    done = pipeline.package(XML, REPOSITORY)
    manifest = require_intact(done.files[0])
    assert list(manifest.parent_files(done.files[0])) == [XML, Path("export/tiny.onnx")]
    assert manifest.parents[0].sha256 == read_manifest(XML).sha256
    done.files[1].write_bytes(b"other weights")
    with pytest.raises(SesurgeryError, match=r"SE401.*model\.bin is not the file"):
        require_intact(done.files[0])


def test_versions_count_up_and_leave_the_earlier_ones_alone(here: Path) -> None:
    first = pipeline.package(ONNX, REPOSITORY)
    before = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
    second = pipeline.package(ONNX, REPOSITORY)
    assert (first.version, second.version) == (1, 2)
    assert {path: path.read_bytes() for path in before} == before
    (first.folder / "7").mkdir()
    assert pipeline.package(ONNX, REPOSITORY).version == 8
    assert [path.name for path in first.folder.iterdir() if path.name.startswith(".")] == []


def test_what_a_killed_packaging_left_is_cleaned_by_the_next(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pipeline.package(ONNX, REPOSITORY).folder
    with monkeypatch.context() as ended:
        # The names of a process that started at another time, and so has ended.
        ended.setattr(temporaries, "started_at", lambda process: 1)
        mark = temporaries.owner()
    left = [folder / f".version.{mark}.abcdefgh.tmp", folder / "1" / f".model.onnx.{mark}.abcdefgh.tmp"]
    left[0].mkdir()
    left[1].write_text("half")
    assert pipeline.package(ONNX, REPOSITORY).version == 2
    assert [path for path in left if path.exists()] == []


def test_a_model_with_another_configuration_is_not_written_over(here: Path) -> None:
    pipeline.package(ONNX, REPOSITORY)
    before = (REPOSITORY / "tiny" / "config.pbtxt").read_text()
    with pytest.raises(
        SesurgeryError, match=r"SE405.*config\.pbtxt.*'backend: \"onnxruntime\"'.*\"openvino\""
    ) as caught:
        pipeline.package(XML, REPOSITORY)
    assert "--name" in str(caught.value.diagnostics[0].hint)
    assert (REPOSITORY / "tiny" / "config.pbtxt").read_text() == before
    assert not (REPOSITORY / "tiny" / "2").exists()
    assert pipeline.package(XML, REPOSITORY, "other").version == 1
    assert config("other").name == "other"


def test_batches_are_those_of_the_profiles(here: Path) -> None:
    engine = build(shapes=["input=2,8,24x1x8x8", "input=32x1x8x8"], name="profiles")
    packed = pipeline.package(engine, REPOSITORY)
    found = config()
    assert found.max_batch_size == 32
    assert list(found.dynamic_batching.preferred_batch_size) == [8]
    assert "the engine takes batches of 2 and more: the server may form smaller ones" in packed.notes


def test_a_fixed_batch_is_a_dimension_like_any_other(here: Path) -> None:
    model = onnx.load("export/tiny.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, "fixed.onnx")
    (built,) = pipeline.build_engines(EnginesRequest(Path("fixed.onnx"), pipeline.Workspace()))
    pipeline.package(built.path, REPOSITORY)
    found = config("fixed")
    assert (found.max_batch_size, list(found.input[0].dims)) == (0, [4, 1, 8, 8])
    assert not found.HasField("dynamic_batching")
    # A file that came from no run has no class names.
    assert found.output[0].label_filename == ""
    assert not (REPOSITORY / "fixed" / "labels.txt").exists()


def test_a_gpu_provider_goes_to_the_gpu(here: Path) -> None:
    for provider in ("cuda", "tensorrt"):
        engine = build(backend={"backend": "onnxruntime", "provider": provider}, name=provider)
        pipeline.package(engine, REPOSITORY, provider)
        found = config(provider)
        assert [group.kind for group in found.instance_group] == [triton.ModelInstanceGroup.KIND_GPU]
        named = [item.name for item in found.optimization.execution_accelerators.gpu_execution_accelerator]
        assert named == (["tensorrt"] if provider == "tensorrt" else [])


def test_a_bf16_engine_asks_the_server_for_bf16(here: Path) -> None:
    if OpenVINO().probe().notes[0].count("BF16") == 0:
        pytest.skip("this processor has no bf16")
    done = pipeline.package(build(backend="openvino", precision="bf16"), REPOSITORY)
    assert config().parameters["HINT_BF16"].string_value == "YES"
    assert not any("cannot be told" in note for note in done.notes)


def test_an_engine_that_triton_has_no_backend_for_is_named(here: Path) -> None:
    if BACKENDS.load("tensorrt-rtx")().probe().builds is not None:
        pytest.skip("TensorRT-RTX is not installed")
    with pytest.raises(SesurgeryError, match=r"SE603.*no backend for engines of 'tensorrt-rtx'") as caught:
        pipeline.package(build(backend="tensorrt-rtx"), REPOSITORY)
    assert caught.value.diagnostics[0].hint == "build one with onnxruntime, openvino, tensorrt"
    assert not REPOSITORY.exists()


def test_a_tensorrt_plan_is_configured_for_a_gpu(here: Path) -> None:
    """Not built here: the configuration is made from the manifest and the ONNX file alone."""
    manifest = read_manifest(ONNX)
    details = manifest.details.model_copy(update={"backend": "tensorrt"})
    inputs, outputs = served.tensors_of(Path("export/tiny.onnx"))
    changed = manifest.model_copy(update={"details": details})
    text = served.configuration("tiny", served.KINDS["tensorrt"], inputs, outputs, changed, labels=True)
    found = text_format.Parse(text, triton.ModelConfig())
    assert (found.backend, found.max_batch_size) == ("tensorrt", 16)
    assert [group.kind for group in found.instance_group] == [triton.ModelInstanceGroup.KIND_GPU]


def test_without_the_file_it_was_built_from_nobody_knows_its_tensors(here: Path) -> None:
    (source,) = read_manifest(ONNX).parent_files(ONNX)
    source.unlink()
    with pytest.raises(
        SesurgeryError, match=r"SE402.*export/tiny\.onnxruntime\.fp32\.onnx, which .* was built from, is gone"
    ):
        pipeline.package(ONNX, REPOSITORY)
    assert not REPOSITORY.exists()


def test_weights_outside_the_file_come_along(here: Path) -> None:
    # Not the small ones: shape inference reads axes and shapes in the file alone.
    outside = {"save_as_external_data": True, "location": "large.bin", "size_threshold": 1024}
    onnx.save(onnx.load("export/tiny.onnx"), "large.onnx", **outside)
    built = pipeline.build_engine(
        pipeline.BuildRequest(Path("large.onnx"), pipeline.engine(), pipeline.Workspace(), lowering=())
    )
    done = pipeline.package(built.path, REPOSITORY)
    assert [path.name for path in done.files] == ["model.onnx", "large.bin"]
    Path("large.bin").unlink()
    with OnnxRuntime().load(done.files[0]) as served:
        assert served.infer({"input": np.ones((2, 1, 8, 8), np.float32)})["logits"].shape == (2, 10)


def test_names_and_labels_are_quoted(here: Path) -> None:
    name = 'a "quoted" näme'
    pipeline.package(ONNX, REPOSITORY, name)
    assert config(name).name == name
    assert manifest_path(REPOSITORY / name / "1" / "model.onnx").is_file()
