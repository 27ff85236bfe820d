"""ONNX Runtime is the judge: what it runs is taken, though the checker rejects it even when repaired."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.onnxgraph import io, numerics
from sesurgery.onnxgraph.checking import rejection, with_computed_outputs
from sesurgery.onnxgraph.repair import repaired
from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon
from tests.fixtures import dialects


def without_a_name(model: onnx.ModelProto) -> None:
    model.graph.ClearField("name")


def with_a_number_of_any_shape(model: onnx.ModelProto) -> None:
    """An input that nobody reads and whose shape is not told."""
    model.graph.input.append(onnx.helper.make_tensor_value_info("many", onnx.TensorProto.INT64, None))


REJECTED = {
    without_a_name: "Field 'name' of 'graph' is required to be non-empty",
    with_a_number_of_any_shape: "Field 'shape' of 'type' is required but missing",
}


@pytest.fixture(params=REJECTED, ids=lambda damage: damage.__name__)
def rejected(request: pytest.FixtureRequest) -> onnx.ModelProto:
    """A file that the checker takes neither as it is nor repaired."""
    damage: Callable[[onnx.ModelProto], None] = request.param
    model = dialects.paddle(1)
    assert rejection(model) is None
    damage(model)
    for each in (model, repaired(model)):
        assert rejection(each) is not None
    assert REJECTED[damage] in str(rejection(model))
    assert with_computed_outputs(model) is None
    return model


def same(one: onnx.ModelProto, other: onnx.ModelProto) -> float:
    fed = numerics.feeds(one)
    return numerics.difference(numerics.outputs(one, fed), numerics.outputs(other, fed))


def test_such_a_file_is_loaded_and_saved(rejected: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(rejected.SerializeToString())
    found = io.load(tmp_path / "net.onnx")
    io.save(found, tmp_path / "again.onnx")
    assert io.load(tmp_path / "again.onnx") == found
    assert found.graph.node == rejected.graph.node
    assert same(rejected, found) == 0.0


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "tensorrt-rtx"])
def test_such_a_file_is_lowered(rejected: onnx.ModelProto, backend: str, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(rejected.SerializeToString())
    done = pipeline.lower(pipeline.LowerRequest(tmp_path / "net.onnx", tmp_path / "lowered.onnx", backend))
    assert done.gates == 1
    assert [edit.changed for edit in done.edits["squeeze_hoist"]] == [True]
    assert same(rejected, io.load(tmp_path / "lowered.onnx")) < 1e-5


def test_what_onnx_runtime_does_not_run_either_is_refused(rejected: onnx.ModelProto, tmp_path: Path) -> None:
    next(node for node in rejected.graph.node if node.op_type == "Conv").op_type = "NoSuchOperator"
    (tmp_path / "net.onnx").write_bytes(rejected.SerializeToString())
    with pytest.raises(SesurgeryError, match=r"SE602.*net\.onnx is not a valid ONNX file"):
        io.load(tmp_path / "net.onnx")
    with pytest.raises(SesurgeryError, match=r"SE602.*was not written"):
        io.save(rejected, tmp_path / "again.onnx")
    assert not (tmp_path / "again.onnx").exists()


def test_an_output_without_a_type_gets_the_one_that_is_inferred(tmp_path: Path) -> None:
    model = dialects.paddle(1)
    wanted = model.graph.output[0].type.tensor_type.elem_type
    model.graph.output[0].ClearField("type")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    found = io.load(tmp_path / "net.onnx")
    assert found.graph.output[0].type.tensor_type.elem_type == wanted
    assert rejection(found) is None
    assert same(model, found) == 0.0


def test_the_surgeon_sees_the_map_of_a_file_whose_stored_shapes_are_empty(tmp_path: Path) -> None:
    model = dialects.with_empty_shapes(dialects.paddle(1), "u0", "t0", "i0")
    assert "Inferred shape and existing shape differ" in str(rejection(model))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    view = OnnxSurgeon((8, 6, 6)).look(io.load(tmp_path / "net.onnx")).view
    assert view["y"].shape == (8, 6, 6)
