"""Loading and saving ONNX files."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, parser

from sesurgery.diagnostics import SesurgeryError
from sesurgery.onnxgraph import io as onnx_io

GOOD = """
<ir_version: 10, opset_import: ["": 20]>
net (float[batch, 4] x) => (float[batch, 4] y) { y = Relu(x) }
"""


@pytest.fixture
def model() -> onnx.ModelProto:
    return parser.parse_model(GOOD)


def test_a_model_reads_back_as_it_was_written(model, tmp_path):
    onnx_io.save(model, tmp_path / "net.onnx")
    assert onnx_io.load(tmp_path / "net.onnx") == model


def test_a_folder_that_is_not_there_is_made(model, tmp_path):
    onnx_io.save(model, tmp_path / "new" / "net.onnx")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["net.onnx"]


def test_an_invalid_model_is_se602_and_is_not_written(model, tmp_path):
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(SesurgeryError, match=r"SE602.*was not written"):
        onnx_io.save(model, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_se402(tmp_path):
    with pytest.raises(SesurgeryError, match=r"SE402.*nowhere\.onnx is not there"):
        onnx_io.load(tmp_path / "nowhere.onnx")


@pytest.mark.parametrize("content", [b"", b"not ONNX at all", b"\x08\x0a\x12"], ids=["empty", "text", "truncated"])
def test_a_file_that_is_no_model_is_se602(content, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(SesurgeryError, match=r"SE602.*net\.onnx is not a valid ONNX file"):
        onnx_io.load(path)


def test_external_data_is_read_from_the_files_own_folder(tmp_path, monkeypatch):
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    model = parser.parse_model(GOOD.replace("Relu(x)", "Add(x, w)"))
    model.graph.initializer.append(weight)
    folder = tmp_path / "models"
    folder.mkdir()
    onnx.save(model, folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    loaded = onnx_io.load(Path("models/net.onnx"))
    assert list(onnx.numpy_helper.to_array(loaded.graph.initializer[0])) == [1.0, 2.0, 3.0, 4.0]


def test_external_data_outside_the_files_folder_is_refused(tmp_path):
    outside = tmp_path / "secret.data"
    outside.write_bytes(b"\0" * 16)
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../secret.data")
    model = parser.parse_model(GOOD.replace("Relu(x)", "Add(x, w)"))
    model.graph.initializer.append(weight)
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SesurgeryError, match=r"SE408.*'\.\./secret\.data' leads out of it"):
        onnx_io.load(folder / "net.onnx")


def test_a_file_that_lists_its_weights_by_the_rules_of_ir_4_is_read_by_them(tmp_path):
    """What onnxslim writes of a file of IR version 3."""
    model = onnx.parser.parse_model("""
        <ir_version: 3, opset_import: ["": 9]>
        g (float[1,2] x) => (float[1,2] y) <float[1,2] w = {1, 2}> { y = Add(x, w) }
    """)
    with pytest.raises(onnx.checker.ValidationError, match="not in graph input"):
        onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "slim.onnx")
    read = onnx_io.load(tmp_path / "slim.onnx")
    assert (read.ir_version, read.graph) == (4, model.graph)
    onnx_io.save(read, tmp_path / "out.onnx")
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
