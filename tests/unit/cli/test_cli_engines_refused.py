"""`sesurgery build-engine` on what cannot become an engine: one clear error each, exit code 1, nothing written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from sesurgery.backends.base import Capability
from sesurgery.backends.tensorrt_rtx import TensorRTForRTX
from sesurgery.cli import main, program

REASON = TensorRTForRTX().probe().builds
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

NET = """<ir_version: 10, opset_import: ["": 20, "acme": 1]>
g (float[batch,3,8,8] x) => (float[batch,4,8,8] y) <float[4,3,3,3] w> {
    c = Conv<pads=[1,1,1,1]>(x, w)
    y = Relu(c)
}"""


def network(text: str = NET) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    for weight in model.graph.value_info:
        shape = [dim.dim_value for dim in weight.type.tensor_type.shape.dim]
        model.graph.initializer.append(
            numpy_helper.from_array(random.normal(size=shape).astype(np.float32), weight.name)
        )
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"
    return model


def truncated() -> bytes:
    content = network().SerializeToString()
    return content[: len(content) * 2 // 3]


def another_output_type() -> bytes:
    model = network()
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    return model.SerializeToString()


def weights_of_another_type() -> bytes:
    model = network()
    (weight,) = model.graph.initializer
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), "w"))
    return model.SerializeToString()


def weights_of_another_shape() -> bytes:
    return network(NET.replace("float[4,3,3,3]", "float[4,5,3,3]")).SerializeToString()


def unknown_operator() -> bytes:
    model = network(NET.replace("Relu(c)", "acme.Squash(c)"))
    entry = model.graph.node[1].metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", "['', 'layer1.0.squash', 'squash']"
    return model.SerializeToString()


def weights_elsewhere() -> bytes:
    model = network()
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "gone.data"
    return model.SerializeToString()


@dataclass(frozen=True)
class Refused:
    name: str
    content: bytes
    message: tuple[str, ...]
    words: tuple[str, ...] = ()


SHAPE = ("--shape",)
CASES = [
    Refused("garbage", b"garbage", ("SE602", "net.onnx")),
    Refused("nothing", b"", ("SE602", "net.onnx")),
    Refused("truncated", truncated(), ("SE602", "net.onnx")),
    Refused("a picture", b"\x89PNG\r\n\x1a\n" + bytes(64), ("SE602", "net.onnx")),
    Refused("another type than declared", another_output_type(), ("SE602", "net.onnx")),
    Refused("weights of another type", weights_of_another_type(), ("SE602", "node_c")),
    Refused("weights of another shape", weights_of_another_shape(), ("SE604", "node_c")),
    Refused("weights that are gone", weights_elsewhere(), ("SE602", "gone.data")),
    Refused("an unknown operator", unknown_operator(), ("SE604", "node_y", "Squash", "layer1.0.squash")),
    Refused(
        "a profile too large", network().SerializeToString(), ("SE604", "fewer than"), (*SHAPE, "x=1,1,99999999x3x8x8")
    ),
    Refused("a profile of another height", network().SerializeToString(), ("SE604", "says 8"), (*SHAPE, "x=1x3x9x8")),
    Refused("a profile of another rank", network().SerializeToString(), ("SE604", "has shape"), (*SHAPE, "x=1x3x8")),
    Refused("a profile of no input", network().SerializeToString(), ("SE604", "no input 'z'"), (*SHAPE, "z=1x3x8x8")),
    Refused("a profile that falls", network().SerializeToString(), ("SE", "must rise"), (*SHAPE, "x=4,2,1x3x8x8")),
    Refused("an unknown option", network().SerializeToString(), ("SE10", "workspce"), ("-O", "workspce=4")),
    Refused("an option out of range", network().SerializeToString(), ("SE10", "level"), ("-O", "level=9")),
    Refused("an unknown target", network().SerializeToString(), ("SE10", "SM90"), ("-O", 'capabilities=["SM90"]')),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_cannot_be_built_is_one_error_and_no_file(case: Refused, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(case.content)
    monkeypatch.setattr("sys.argv", ["sesurgery", "build-engine", "net.onnx", "--backend", "tensorrt-rtx", *case.words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 1, said.err
    assert "error[SE" in said.err
    assert all(word in said.err for word in case.message), said.err
    assert "Traceback" not in said.err
    engines = Path("engines")
    assert not [path for path in engines.glob("*") if path.name != ".lock"] if engines.is_dir() else True


def test_the_compiled_kernels_of_a_file_and_of_its_engine_are_the_same(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(network().SerializeToString())
    run = CliRunner()
    done = run.invoke(program, ["build-engine", "net.onnx", "--backend", "tensorrt-rtx", "--batch", "1,1,4"])
    assert done.exit_code == 0, done.output
    (engine,) = Path("engines").glob("*.engine")
    texts = []
    for target in ("net.onnx", str(engine)):
        shown = run.invoke(program, ["inspect", target, "--compiled"])
        assert shown.exit_code == 0, shown.output
        texts.append(shown.stdout.splitlines())
    assert texts[0][0] == "net.onnx: compiled by TensorRT-RTX at batch 1"
    assert texts[1][0] == f"{engine.name}: compiled again of net.onnx by TensorRT-RTX at batch 1"
    assert texts[0][1:] == texts[1][1:]
    assert any(line.startswith("correlation ") for line in texts[0])
    verbose = run.invoke(program, ["inspect", "net.onnx", "--compiled", "-v"]).stdout
    assert "node_c, node_y" in verbose


def test_an_engine_whose_file_is_gone_says_what_to_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(network().SerializeToString())
    run = CliRunner()
    assert run.invoke(program, ["build-engine", "net.onnx", "--backend", "tensorrt-rtx"]).exit_code == 0
    Path("net.onnx").unlink()
    (engine,) = Path("engines").glob("*.engine")
    shown = run.invoke(program, ["inspect", str(engine), "--compiled"])
    assert "SE603" in str(shown.exception)
    assert "is not there as it was" in str(shown.exception)
    assert "sesurgery build-engine net.onnx" in str(shown.exception)


@pytest.mark.parametrize("told", ['"Half"', '"N/A due to dynamic shapes"'], ids=["types", "open shapes"])
def test_an_engine_that_does_not_tell_its_types_is_compiled_again(
    told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(network().SerializeToString())
    run = CliRunner()
    words = ["build-engine", "net.onnx", "--backend", "tensorrt-rtx", "-O", "detailed=true"]
    assert run.invoke(program, words).exit_code == 0
    (engine,) = Path("engines").glob("*.engine")
    tensor = f'{{"Name": "x", "Dimensions": [-1, 3, 8, 8], "Format/Datatype": {told}}}'
    layer = f'{{"Name": "told", "LayerType": "TOLD", "Inputs": [{tensor}], "Outputs": [{tensor}]}}'
    monkeypatch.setattr(TensorRTForRTX, "probe", lambda self: Capability("1.7", None, None))
    monkeypatch.setattr(TensorRTForRTX, "inspected", lambda self, path: f'{{"Layers": [{layer}], "Bindings": ["x"]}}')
    shown = run.invoke(program, ["inspect", str(engine), "--compiled"])
    assert shown.exit_code == 0, shown.output
    assert ("as the engine tells" in shown.stdout) == ("TOLD" in shown.stdout) == (told == '"Half"')
    assert ("compiled again of net.onnx" in shown.stdout) == (told != '"Half"')
