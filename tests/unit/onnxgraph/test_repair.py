"""What a file says of itself and is not so."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from sesurgery.diagnostics import SesurgeryError
from sesurgery.onnxgraph import checking, io
from sesurgery.onnxgraph.checking import rejection
from sesurgery.onnxgraph.simplify import simplified

NET = """
<ir_version: 10, opset_import: ["": 20]>
net (float[batch, 3, 8, 8] x) => (float[batch, 3, 8, 8] y)
{ inner = Relu(x) y = Relu(inner) }
"""


def test_names_that_are_no_utf_8_are_read_with_marks_in_their_place(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(NET)
    model.graph.node[0].name = "/first/Relu"
    model.producer_name = "producer"
    data = model.SerializeToString()
    for name in (b"/first/Relu", b"inner", b"producer"):
        assert name in data
        data = data.replace(name, name[:-1] + b"\xff")
    (tmp_path / "odd.onnx").write_bytes(data)
    assert isinstance(onnx.load(tmp_path / "odd.onnx").graph.node[0].name, bytes)
    found = io.load(tmp_path / "odd.onnx")
    first, second = found.graph.node
    assert first.name == "/first/Rel\N{REPLACEMENT CHARACTER}"
    assert first.output == second.input == ["inne\N{REPLACEMENT CHARACTER}"]
    assert found.producer_name == "produce\N{REPLACEMENT CHARACTER}"


# The larger of two weights is the shape: inference stops there, until they are folded.
UNSEEN = f"""
<ir_version: 10, opset_import: ["": 20]>
net (float[N, 4] x) => (float[N, 7] y) <float[4, 3] w = {{{", ".join(["0.5"] * 12)}}},
int64[2] one = {{-1, 2}}, int64[2] other = {{-1, 3}}>
{{ d = MatMul(x, w) shape = Max(one, other) y = Reshape(d, shape) }}
"""


def sizes(model: onnx.ModelProto) -> list[int]:
    return [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]


def test_a_wrong_size_of_an_output_is_not_written_once_it_is_seen(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(UNSEEN)
    # Nobody contradicts the file as it is.
    assert rejection(model) is None
    changed = simplified(model)
    assert "Inferred shape and existing shape differ" in (rejection(changed) or "")
    io.save(changed, tmp_path / "out.onnx")
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    assert sizes(onnx.load(tmp_path / "out.onnx")) == [0, 3]


def test_sizes_of_outputs_are_left_open_where_inference_alone_does_not_find_them(monkeypatch) -> None:
    changed = simplified(onnx.parser.parse_model(UNSEEN))
    monkeypatch.setattr(checking, "compute_outputs", lambda model: None)
    mended = checking.with_computed_outputs(changed)
    assert mended is not None
    assert sizes(mended) == [0, 0]


def test_another_mistake_is_still_refused(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(NET)
    model.graph.node[1].op_type = "Nope"
    with pytest.raises(SesurgeryError, match=r"SE602.*was not written"):
        io.save(model, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
