"""`lower` on gates as the converters of other frameworks write them: how many places each pass changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from sesurgery import pipeline
from sesurgery.onnxgraph import io, numerics
from sesurgery.pipeline.lower import LoweredFile
from tests.fixtures import dialects

BACKENDS = ("onnxruntime", "openvino", "tensorrt-rtx")
HOISTED = {
    "onnxruntime": ("squeeze_hoist",),
    "openvino": ("squeeze_hoist",),
    "tensorrt-rtx": ("squeeze_hoist", "squeeze_layout", "gate_epilogue"),
    "tensorrt": ("squeeze_hoist", "squeeze_layout"),
}
"""What each backend's passes do with a gate of convolutions behind a 1x1 convolution."""


def lowered(model: onnx.ModelProto, backend: str, folder: Path) -> LoweredFile:
    """Lower a file, and assert that it computes the same."""
    source, target = folder / "net.onnx", folder / "lowered.onnx"
    source.write_bytes(model.SerializeToString())
    done = pipeline.lower(pipeline.LowerRequest(source, target, backend))
    fed = numerics.feeds(model, seed=1)
    assert numerics.difference(numerics.outputs(model, fed), numerics.outputs(io.load(target), fed)) < 1e-5
    return done


def changed(done: LoweredFile) -> dict[str, int]:
    """How many places each pass changed, of those that changed any."""
    counts = {name: sum(edit.changed for edit in edits) for name, edits in done.edits.items()}
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize("backend", BACKENDS)
def test_ten_gates_of_paddle_are_lowered_in_ten_places(backend: str, tmp_path: Path) -> None:
    """The bias is an Add of its own, weights are in Constant nodes, an Identity stands in front of each gate."""
    model = dialects.paddle(10)
    kinds = [node.op_type for node in model.graph.node]
    assert (kinds.count("Constant"), kinds.count("Identity"), kinds.count("Add")) == (50, 20, 10)
    assert not model.graph.initializer
    done = lowered(model, backend, tmp_path)
    assert done.gates == 10
    assert changed(done) == dict.fromkeys(HOISTED[backend], 10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("opset", [7, 9, 13])
@pytest.mark.parametrize("dialect", [dialects.keras, dialects.caffe])
def test_a_gate_of_dense_layers_is_lowered_in_old_opsets_too(
    dialect: Callable[[int], onnx.ModelProto], opset: int, backend: str, tmp_path: Path
) -> None:
    done = lowered(dialect(opset), backend, tmp_path)
    # Keras takes its mean by ReduceMean, which ONNX Runtime has a faster operator for.
    pooled = ("squeeze_pool",) if dialect is dialects.keras and backend == "onnxruntime" else ()
    assert done.gates == 1
    assert changed(done) == dict.fromkeys(("linear_to_conv", *HOISTED[backend], *pooled), 1)
    assert any("folded norms, biases and factors after 1 convolutions" in note for note in done.notes)
    assert any(note.startswith(f"converted from opset {opset} to 13") for note in done.notes) == (opset < 13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("opset", [7, 9, 13])
def test_a_gate_between_transposes_is_found_and_left_with_the_reason(opset: int, backend: str, tmp_path: Path) -> None:
    done = lowered(dialects.keras(opset, islands=True), backend, tmp_path)
    assert done.gates == 1
    assert changed(done) == {}
    (hoist,) = done.edits["squeeze_hoist"]
    assert hoist.why == "its axes are [1, 2]: it is taken channels last already"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_whose_stored_shapes_are_empty_is_lowered(backend: str, tmp_path: Path) -> None:
    model = dialects.with_empty_shapes(dialects.paddle(2), "u0", "t0", "i1")
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.checker.check_model(model, full_check=True)
    done = lowered(model, backend, tmp_path)
    assert done.gates == 2
    assert changed(done) == dict.fromkeys(HOISTED[backend], 2)


@pytest.mark.parametrize("backend", HOISTED)
def test_metadata_of_nodes_stands_once_in_a_file_whose_opset_was_raised(backend: str, tmp_path: Path) -> None:
    model = dialects.keras(9)
    for node in model.graph.node:
        node.metadata_props.add(key="made", value=node.output[0])
        node.metadata_props.add(key="by", value="keras")
    done = lowered(model, backend, tmp_path)
    assert any(note.startswith("converted from opset 9 to 13") for note in done.notes)
    found = onnx.load(tmp_path / "lowered.onnx")
    onnx.checker.check_model(found, full_check=True)
    told = [[(entry.key, entry.value) for entry in node.metadata_props] for node in found.graph.node]
    assert [("made", "c"), ("by", "keras")] in told
    assert all(len(entries) == len(dict(entries)) for entries in told)


@pytest.mark.parametrize("backend", HOISTED)
def test_a_file_whose_batch_is_stored_as_minus_one_is_lowered(backend: str, tmp_path: Path) -> None:
    model = dialects.paddle(1)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    done = lowered(model, backend, tmp_path)
    assert done.gates == 1
    assert changed(done) == dict.fromkeys(HOISTED[backend], 1)
    first = onnx.load(tmp_path / "lowered.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert first.dim_param == "batch"
