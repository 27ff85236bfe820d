"""The ONNX file before any builder sees it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sesurgery.backends.base import BuildOptions
from sesurgery.backends.inputs import onnx_file as _source
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.backends.onnxruntime_graph import operators as _operators
from sesurgery.diagnostics import SesurgeryError


def test_convolutions_are_counted_by_the_type_they_give(fp32: Path, fp16: Path) -> None:
    assert _source.read(fp32).convolutions() == {"fp32": 3}
    assert _source.read(fp16).convolutions() == {"fp16": 1, "fp32": 2}


@pytest.mark.parametrize("content", [b"garbage", b"", b"\x08\x0a", bytes(range(256)) * 8], ids=len)
def test_a_file_that_is_no_onnx_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(SesurgeryError, match=r"SE602.*net\.onnx"):
        _source.read(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(part: float, fp32: Path) -> None:
    content = fp32.read_bytes()
    fp32.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(SesurgeryError, match="SE602"):
        _source.read(fp32)


def test_a_file_that_is_not_there_is_no_invalid_model(tmp_path: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"SE402.*is not there"):
        _source.read(tmp_path / "none.onnx")


def test_a_graph_without_nodes_is_refused(fp32: Path) -> None:
    model = onnx.load(fp32)
    del model.graph.node[:]
    del model.graph.output[:]
    onnx.save(model, fp32)
    with pytest.raises(SesurgeryError, match=r"SE602.*holds no network"):
        _source.read(fp32)


def test_a_declared_output_type_that_the_network_does_not_give_is_refused(fp32: Path) -> None:
    model = onnx.load(fp32)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, fp32)
    with pytest.raises(SesurgeryError, match="SE602"):
        _source.read(fp32)


def test_weights_outside_the_file_are_found_beside_it_and_missed_when_they_are_gone(fp32: Path) -> None:
    onnx.save(onnx.load(fp32), fp32, save_as_external_data=True, location="se.onnx.data", size_threshold=0)
    assert _source.read(fp32).convolutions() == {"fp32": 3}
    (fp32.parent / "se.onnx.data").unlink()
    with pytest.raises(SesurgeryError, match=r"SE602.*se\.onnx\.data"):
        _source.read(fp32)


def test_the_scope_of_a_node_is_the_module_that_owns_it(fp32: Path) -> None:
    model = onnx.load(fp32)
    entry = model.graph.node[3].metadata_props.add()
    entry.key, entry.value = _source.SCOPES, "['', 'layer1', 'layer1.0.se', 'conv2d_3']"
    onnx.save(model, fp32)
    source = _source.read(fp32)
    assert source.scope("node_hidden") == "layer1.0.se"
    assert source.scope("node_gate") == ""
    assert source.scope("no such node") == ""


def test_inputs_that_are_weights_have_no_batch(fixed_batch: Path) -> None:
    model = onnx.load(fixed_batch)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(7, np.float32), "unused"))
    model.graph.input.append(onnx.helper.make_tensor_value_info("unused", onnx.TensorProto.FLOAT, [7]))
    onnx.save(model, fixed_batch)
    assert _source.read(fixed_batch).fixed_batches() == {"x": 4}


@pytest.mark.parametrize(
    ("asked", "found", "message"),
    [
        ("fp16", {"fp32": 53}, r"SE605.*no fp16 convolution \(found: 53 fp32\)"),
        ("fp16", {}, r"SE605.*found: none at all"),
        ("fp32", {"fp16": 53, "fp32": 32}, r"SE605.*not fp32 \(found: 53 fp16, 32 fp32\)"),
    ],
)
def test_a_precision_that_the_convolutions_do_not_have_is_refused(asked, found, message) -> None:
    with pytest.raises(SesurgeryError, match=message):
        _source.prove_precision(asked, found, "the network")


@pytest.mark.parametrize(("asked", "found"), [("fp16", {"fp16": 53, "fp32": 32}), ("fp32", {"fp32": 53}), ("fp32", {})])
def test_a_precision_that_the_convolutions_have_passes(asked, found) -> None:
    _source.prove_precision(asked, found, "the network")


BRANCHES = """<ir_version: 10, opset_import: ["": 20]>
g (float[N,3,8,8] x, bool first) => (float[N,4,6,6] y) <float[4,3,3,3] w = {WEIGHTS}> {
    y = If (first) <
        then_branch = one () => (float[N,4,6,6] a) { c = Conv(x, w)  a = Relu(c) },
        else_branch = other () => (float[N,4,6,6] b) { d = Conv(x, w)  n = Exp(x)  e = Conv(n, w)  b = Add(d, e) }
    >
}""".replace("WEIGHTS", ", ".join(["0.1"] * 108))


def test_convolutions_that_an_if_chooses_between_are_counted(tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(BRANCHES), tmp_path / "net.onnx")
    assert _source.read(tmp_path / "net.onnx").convolutions() == {"fp32": 3}
    built = OnnxRuntime().build(tmp_path / "net.onnx", tmp_path / "engine.onnx", BuildOptions())
    assert built.convolutions == {"fp32": 3}
    (outer, *inner) = _operators.read(tmp_path / "engine.onnx")
    assert outer.kinds == {"If": 1}
    assert sorted((graph.name, graph.convolutions) for graph in inner) == [("one", {"fp32": 1}), ("other", {"fp32": 2})]
