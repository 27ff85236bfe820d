"""`sesurgery lower`: a summary line, the reasons on request, data as JSON; and the passes that a spec may name."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from sesurgery import pipeline
from sesurgery.cli import program
from sesurgery.diagnostics import SesurgeryError, SpecError
from sesurgery.lowering import PASSES
from sesurgery.lowering import examples as _examples
from sesurgery.onnxgraph import numerics as _numerics
from sesurgery.workspace import read_manifest

NET = """(float[N,4,6,6] x) => (float[N,8,6,6] y) <float[8,4,1,1] w, float[3,8,1,1] w1, float[8,3,1,1] w2> {
    t = Relu(x) u = Conv(t, w) z = GlobalAveragePool(u) d = Conv(z, w1) e = Conv(d, w2) gate = Sigmoid(e)
    y = Mul(u, gate) }"""
SPEC = {
    "version": 1,
    "model": {"source": "torchvision", "name": "resnet18"},
    "input": {"shape": [3, 32, 32]},
    "surgery": [{"insert": "se", "at": "residual"}],
}


@pytest.fixture
def net(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    onnx.save(_examples.model(NET), "net.onnx")
    return "net.onnx"


def lower(*arguments: str) -> str:
    result = CliRunner().invoke(program, ["lower", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_one_line_says_what_was_done(net: str) -> None:
    said = lower(net, "-o", "out.onnx", "--for", "tensorrt-rtx")
    assert said.startswith("3 edits by 6 passes, 7 -> 9 nodes, largest relative difference ")
    assert said.endswith(" -> out.onnx\n")


def test_explain_gives_the_reasons(net: str) -> None:
    said = lower(net, "-o", "out.onnx", "--for", "onnxruntime", "--passes", "squeeze_hoist_spatial", "--explain")
    assert "squeeze_hoist_spatial: left alone: GlobalAveragePool_2: the convolution is 1x1" in said


def test_json_is_data(net: str) -> None:
    data = json.loads(lower(net, "-o", "out.onnx", "--for", "tensorrt-rtx", "--json"))
    assert data["passes"][:2] == ["linear_to_conv", "squeeze_hoist"]
    assert [edit["pass"] for edit in data["edits"] if edit["changed"]] == [
        *("squeeze_hoist", "squeeze_layout", "gate_epilogue"),
    ]


def test_constant_gates_are_folded_by_samples_within_a_bound(net: str) -> None:
    others = _numerics.feeds(onnx.load(net))
    np.savez("samples.npz", **{key: value[:1].repeat(6, 0) for key, value in others.items()})
    arguments = ("-o", "out.onnx", "--for", "openvino", "--passes", "constant_gates", "--explain")
    # Six times the same sample: every gate is constant.
    said = lower(net, *arguments, "--calibration", "samples.npz", "--bound", "0.001")
    assert "constant within 0 on 6 samples: folded into" in said
    assert "constant gates change outputs by up to" in said
    np.savez("samples.npz", **{key: value * 9 for key, value in _batch(others, 6).items()})
    said = lower(net, *arguments, "--calibration", "samples.npz", "--bound", "0.001")
    assert "left alone" in said
    assert "0.001 is allowed" in said


def test_half_of_the_samples_decide_where_that_is_asked_for(net: str) -> None:
    others = _batch(_numerics.feeds(onnx.load(net)), 10)
    np.savez("samples.npz", labels=np.arange(10) % 2, **others)
    arguments = ("-o", "out.onnx", "--for", "openvino", "--passes", "constant_gates", "--bound", "0.5", "--explain")
    said = lower(net, *arguments, "--calibration", "samples.npz")
    assert "on 10 samples: folded into" in said
    said = lower(net, *arguments, "--calibration", "samples.npz", "--half")
    assert "on 5 samples: folded into" in said
    assert read_manifest(Path("out.onnx")).command.endswith("--calibration samples.npz --half --bound 0.5")


def test_half_of_no_samples_is_refused(net: str) -> None:
    ended = CliRunner().invoke(program, ["lower", net, "-o", "out.onnx", "--for", "openvino", "--half"])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "--half goes with --calibration FILE.npz" in ended.stderr


def test_constant_gates_need_samples(net: str) -> None:
    with pytest.raises(SesurgeryError, match=r"SE602.*it needs samples.*--calibration FILE\.npz"):
        lower(net, "-o", "out.onnx", "--for", "openvino", "--passes", "constant_gates")


def _batch(feeds: dict, count: int) -> dict:
    random = np.random.default_rng(3)
    return {key: random.normal(size=(count, *value.shape[1:])).astype(np.float32) for key, value in feeds.items()}


@pytest.mark.parametrize(
    ("given", "found"), [("none", ()), (["squeeze_layout"], ("squeeze_layout",)), ([], ()), (None, None)]
)
def test_a_spec_names_its_passes(given: object, found: object) -> None:
    assert pipeline.load_spec({**SPEC, "export": {"lowering": given}}).export.lowering == found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["squeeze_layot"], "unknown pass 'squeeze_layot'"),
        (["precision"], "unknown pass 'precision'"),
        ("all", "expected a list of lowering passes, or 'none'"),
        ([1], "expected a list of lowering passes, or 'none'"),
    ],
)
def test_a_spec_that_names_none_that_there_is_is_refused(given: object, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        pipeline.load_spec({**SPEC, "export": {"lowering": given}})


FOUND = Path(__file__).parents[2] / "integration" / "found"


def test_explain_says_what_the_backend_leaves_out_and_how_many_gates_there_are(net: str) -> None:
    said = lower(net, "-o", "out.onnx", "--for", "onnxruntime", "--explain").splitlines()
    assert said[0] == "gates of attention blocks, found by dataflow: 1"
    (left_out,) = [line for line in said if line.startswith("not in the passes of onnxruntime: ")]
    assert {"squeeze_layout", "constant_gates"} <= set(left_out.partition(": ")[2].split(", "))
    assert "squeeze_pool" not in left_out
    named = lower(net, "-o", "out.onnx", "--for", "onnxruntime", "--passes", "squeeze_pool", "--explain")
    assert "not in the passes" not in named


def test_every_pass_has_something_to_say_of_every_gate(net: str) -> None:
    for name in (name for name in PASSES.names() if name not in ("constant_gates", "fold_norms")):
        said = lower(net, "-o", "out.onnx", "--for", "onnxruntime", "--passes", name, "--explain").splitlines()
        assert [line for line in said if line.startswith(f"{name}: ")], name
        assert f"{name}: nothing that it could change" not in said


def test_a_file_without_gates_is_said_to_have_none(net: str) -> None:
    text = "(float[N,4,6,6] x) => (float[N,4,6,6] y) { y = Relu(x) }"
    onnx.save(_examples.model(text), "plain.onnx")
    said = lower("plain.onnx", "-o", "out.onnx", "--for", "openvino")
    assert said.startswith("no attention gate was found: ")
    assert "hard_sigmoid: nothing that it could change" in lower(
        "plain.onnx", "-o", "out.onnx", "--for", "openvino", "--explain"
    )


def test_a_node_is_named_with_the_module_that_it_came_from(net: str) -> None:
    model = onnx.load(net)
    for node in model.graph.node:
        entry = node.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", "['', 'layer1', 'layer1.0.se', 'mean']"
    onnx.save(model, net)
    said = lower(net, "-o", "out.onnx", "--for", "onnxruntime", "--explain")
    assert "squeeze_pool: left alone: GlobalAveragePool_2_GlobalAveragePool (in layer1.0.se): " in said


def test_a_file_of_tensorflow_in_an_old_opset_is_converted_and_compared(net: str) -> None:
    """tf2onnx at opset 9; its gate is convolutions of a reshaped mean."""
    given = str(FOUND / "tf2onnx_se.onnx")
    said = lower(given, "-o", "out.onnx", "--for", "tensorrt-rtx", "--explain")
    assert "converted from opset 9 to 13, the oldest that passes support" in said
    assert "; largest relative difference 0\n" in said
    assert "3 reshapes between its projections removed" in said
    feeds = _numerics.feeds(onnx.load(given))
    found = _numerics.outputs(onnx.load("out.onnx"), feeds)
    assert _numerics.difference(_numerics.outputs(onnx.load(given), feeds), found) < 1e-5


def test_a_file_that_does_not_convert_says_why(net: str) -> None:
    model = onnx.load(net)
    model.graph.node[0].domain = "of.mine"
    model.opset_import.append(onnx.helper.make_opsetid("of.mine", 1))
    model.opset_import[0].version = 9
    onnx.save(model, net)
    with pytest.raises(SesurgeryError, match=r"SE602"):
        lower(net, "-o", "out.onnx", "--for", "openvino")
