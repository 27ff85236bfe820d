"""What a file says of itself and is not so."""

from __future__ import annotations

from pathlib import Path

import onnx

from sesurgery.onnxgraph import io

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
