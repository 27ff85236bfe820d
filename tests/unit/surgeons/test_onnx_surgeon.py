"""Surgery on ONNX files as they are found."""

from __future__ import annotations

import copy
import functools
import io
import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from onnx import TensorProto, helper, numpy_helper, parser
from torch import nn

from sesurgery import pipeline, planner
from sesurgery.blocks import BLOCKS
from sesurgery.catalog import Ref
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks.export import export
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph import opset as onnx_opset
from sesurgery.planner import Plan, Site
from sesurgery.spec.export import Export
from sesurgery.surgeons.onnx.blocks import Blocks
from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

SHAPE = (4, 6, 6)
IDENTITY = {"block": "se", "reduction": 2, "init": "identity"}
SE = {"block": "se", "reduction": 2}

# A residual unit as torch's exporter writes it: folded norms, scopes in the metadata, spelled-out silu.
UNIT = """
<ir_version: 8, opset_import: ["": 17, "custom": 3], producer_name: "someone", model_version: 7, doc_string: "a model">
net (float[batch, 4, H, W] image) => (float[batch, 4, H, W] map) {
  a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (image, layer.conv1.weight)
  s = Sigmoid (a)
  silu = Mul (a, s)
  b = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (silu, layer.conv2.weight)
  sum = Add (b, image)
  map = Relu (sum)
}
"""


def unit(text: str = UNIT, dtype: int = TensorProto.FLOAT, opset: int | None = None) -> onnx.ModelProto:
    """The unit above with weights, descriptions and one weight that nobody reads."""
    if dtype != TensorProto.FLOAT:
        text = text.replace("float[", f"{TensorProto.DataType.Name(dtype).lower()}[")
    # The parser takes no dots in names.
    model = parser.parse_model(text.replace("layer.conv", "layer_conv").replace(".weight", "_weight"))
    rng = np.random.default_rng(0)
    wanted = helper.tensor_dtype_to_np_dtype(dtype)
    for node in model.graph.node:
        node.input[:] = [name.replace("layer_conv", "layer.conv").replace("_weight", ".weight") for name in node.input]
        node.doc_string = f"where {node.output[0]} is made"
        path = {"a": "layer.bn1", "b": "layer.bn2", "s": "layer.act", "silu": "layer.act", "map": "layer.relu"}
        scopes = str(["", "layer", path.get(node.output[0], "layer"), "op"])
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    for name in ("layer.conv1.weight", "layer.conv2.weight", "unread"):
        values = rng.normal(0, 0.3, (4, 4, 3, 3)).astype(wanted)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    model.metadata_props.add(key="licence", value="mine")
    model.graph.doc_string = "a graph"
    if opset is not None:
        model.opset_import[0].version = opset
    return model


def planned(model: onnx.ModelProto, shape: tuple[int, int, int], *rules: Mapping[str, Any]) -> Plan:
    spec = pipeline.load_spec(
        {
            "version": 1,
            "model": {"source": "onnx", "name": "not loaded: the model is at hand"},
            "input": {"shape": list(shape)},
            "surgery": list(rules),
        }
    )
    return planner.plan(spec, OnnxSurgeon(shape).view(model))


@functools.cache
def _surgeon(shape: tuple[int, int, int]) -> OnnxSurgeon:
    """One surgeon a shape: it exports a kind of block once."""
    return OnnxSurgeon(shape)


def operate(model: onnx.ModelProto, *rules: Mapping[str, Any], shape: tuple[int, int, int] = SHAPE) -> onnx.ModelProto:
    before = model.SerializeToString(deterministic=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        changed = _surgeon(shape).apply(model, planned(model, shape, *rules))
    assert model.SerializeToString(deterministic=True) == before, "the given model was touched"
    onnx.checker.check_model(changed, full_check=True)
    return changed


def answer(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


def image(shape: tuple[int, int, int] = SHAPE, batch: int = 2, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(batch, *shape)).astype(dtype)


# --- the view ---------------------------------------------------------------------------------------------------------


def test_the_view_shows_folded_norms_and_spelled_out_activations_as_torch_has_them() -> None:
    assert (
        str(OnnxSurgeon(SHAPE).view(unit()))
        == """\
image = input() : 4x6x6
a~conv = conv(image) [3x3 s1 p1 4->4] @layer.conv1 : 4x6x6
a = norm(a~conv) @layer.bn1 : 4x6x6
silu = act(a) @layer.act : 4x6x6
b~conv = conv(silu) [3x3 s1 p1 4->4] @layer.conv2 : 4x6x6
b = norm(b~conv) @layer.bn2 : 4x6x6
sum = add(b, image) @layer : 4x6x6
map = act(sum) @layer.relu : 4x6x6
output() = output(map)"""
    )


def view_of(body: str, opset: int = 20, inputs: str = "float[N, 4, H, W] x", scopes: tuple[str, ...] = ()) -> str:
    text = f'<ir_version: 8, opset_import: ["": {opset}]> net ({inputs}) => (float[N, A, B, C] y) {{ {body} }}'
    model = parser.parse_model(text)
    for node, scope in zip(model.graph.node, scopes, strict=False):
        node.name = f"/{scope.replace('.', '/')}/{node.op_type}"
    return str(OnnxSurgeon(SHAPE).view(model))


@pytest.mark.parametrize(
    "body",
    [
        "s = Sigmoid (x) y = Mul (x, s)",
        "s = HardSigmoid (x) y = Mul (s, x)",
        "three = Constant <value = float {3.0}> () zero = Constant <value = float {0.0}> () six = Constant "
        "<value = float {6.0}> () a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six)",
        "p = Softplus (x) t = Tanh (p) y = Mul (x, t)",
        "r = Constant <value = float {1.414}> () one = Constant <value = float {1.0}> () half = Constant "
        "<value = float {0.5}> () d = Div (x, r) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, half)",
    ],
    ids=["silu", "hardswish", "hardswish by clip", "mish", "gelu"],
)
def test_a_spelled_out_activation_is_one_node(body: str) -> None:
    assert view_of(body) == "x = input() : 4x6x6\ny = act(x) : 4x6x6\noutput() = output(y)"


def test_a_product_with_a_gate_is_no_activation() -> None:
    view = view_of("p = GlobalAveragePool (x) s = Sigmoid (p) y = Mul (x, s)")
    assert "y = mul(x, s) : 4x6x6" in view


def test_an_activation_whose_curve_is_read_elsewhere_stays_in_pieces() -> None:
    assert "m = mul(x, s)" in view_of("s = Sigmoid (x) m = Mul (x, s) y = Add (m, s)")


def test_a_group_norm_in_pieces_is_one_node() -> None:
    body = (
        "g = Constant <value = int64[3] {0, 2, -1}> () full = Constant <value = int64[4] {0, 4, 6, 6}> () "
        "one = Constant <value = float[2] {1.0, 1.0}> () nil = Constant <value = float[2] {0.0, 0.0}> () "
        "k = Constant <value = float[4, 1, 1] {1.0, 1.0, 1.0, 2.0}> () "
        "a = Reshape (x, g) b = InstanceNormalization (a, one, nil) c = Reshape (b, full) d = Mul (c, k) y = Add (d, k)"
    )
    assert view_of(body) == "x = input() : 4x6x6\ny = norm(x) : 4x6x6\noutput() = output(y)"


CHANNELS_LAST_NORM = (
    "g = Constant <value = float[4] {1.0, 1.0, 1.0, 2.0}> () "
    "a = Transpose <perm = [0, 2, 3, 1]> (x) b = LayerNormalization <axis = %d> (a, g) "
    "y = Transpose <perm = [%s]> (b)"
)


def test_a_norm_of_channels_between_two_turns_of_the_map_is_one_node() -> None:
    """As an exporter writes timm's LayerNorm2d."""
    view = view_of(CHANNELS_LAST_NORM % (-1, "0, 3, 1, 2"))
    assert view == "x = input() : 4x6x6\ny = norm(x) : 4x6x6\noutput() = output(y)"


@pytest.mark.parametrize(("axis", "back"), [(2, "0, 3, 1, 2"), (-1, "0, 3, 2, 1")], ids=["two axes", "another turn"])
def test_a_norm_of_more_than_channels_or_turned_elsewhere_stays_in_pieces(axis: int, back: str) -> None:
    assert "b = norm(a)" in view_of(CHANNELS_LAST_NORM % (axis, back))


def test_a_norm_whose_map_another_module_turns_stays_in_pieces() -> None:
    view = view_of(CHANNELS_LAST_NORM % (-1, "0, 3, 1, 2"), scopes=("unit", "unit", "unit.norm", "unit"))
    assert "b = norm(a) @unit.norm" in view
    assert "y = norm(x)" not in view


def test_scopes_come_from_the_names_of_torchs_older_exporter() -> None:
    model = unit()
    names = ["/layer/layer.0/conv1/Conv", "/layer/layer.0/act/Sigmoid", "/layer/layer.0/act/Mul"]
    names += ["/layer/layer.0/body/body.1/Conv", "/layer/layer.0/Add", "Relu_3"]
    for node, name in zip(model.graph.node, names, strict=True):
        del node.metadata_props[:]
        node.name = name
        node.input[:] = [item.replace("layer.conv", "onnx::Conv_") for item in node.input]
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.replace("layer.conv", "onnx::Conv_")
    view = OnnxSurgeon(SHAPE).view(model)
    scopes = {node.name: node.scope for node in view if node.op.value not in ("input", "output")}
    assert scopes == {
        "a": "layer.0.conv1", "silu": "layer.0.act", "b": "layer.0.body.1", "sum": "layer.0", "map": "",
    }  # fmt: skip


def test_an_image_of_another_size_than_the_files_is_an_error() -> None:
    with pytest.raises(SesurgeryError, match=r"SE304.*takes? .*its input is 4x\?x\?"):
        OnnxSurgeon((3, 6, 6)).view(unit())


@pytest.mark.parametrize("opset", [6, 24])
def test_an_opset_out_of_range_is_se602(opset: int) -> None:
    with pytest.raises(SesurgeryError, match=f"SE602.*opset {opset}"):
        OnnxSurgeon(SHAPE).view(unit(opset=opset))


# --- inserting --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("at", ["residual", "pre", "post", "identity", "inner", "conv"])
def test_an_identity_leaves_the_outputs_as_they_were(at: str) -> None:
    changed = operate(unit(), {"insert": IDENTITY, "at": at})
    assert len(changed.graph.node) > len(unit().graph.node)
    np.testing.assert_allclose(answer(changed, image()), answer(unit(), image()), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_an_inserted_block_has_the_names_and_scopes_of_its_module() -> None:
    changed = operate(unit(), {"insert": SE, "at": "residual"})
    new = [node for node in changed.graph.node if node.name.startswith("layer.se/")]
    assert [node.op_type for node in new] == ["ReduceMean", "Conv", "Relu", "Conv", "Sigmoid", "Mul"]
    assert [tensor.name for tensor in changed.graph.initializer if tensor.name.startswith("layer.se.")] == [
        "layer.se.fc1.weight", "layer.se.fc1.bias", "layer.se.fc2.weight", "layer.se.fc2.bias",
    ]  # fmt: skip
    again = planned(changed, SHAPE, {"remove": "se"})
    assert [(gone.scope, gone.value) for gone in again.removals] == [("layer.se", "b")]


@pytest.mark.slow
def test_removing_what_was_inserted_gives_the_model_back() -> None:
    changed = operate(unit(), {"insert": SE, "at": "residual"})
    back = operate(changed, {"remove": "se", "expect": 1})
    assert back == unit()


@pytest.mark.slow
def test_the_outputs_name_stays_when_a_block_becomes_the_output() -> None:
    changed = operate(unit(), {"insert": SE, "at": "post"})
    assert [value.name for value in changed.graph.output] == ["map"]
    assert changed.graph.node[-1].name.startswith("layer.se/")
    assert np.abs(answer(changed, image()) - answer(unit(), image())).max() > 1e-3


@pytest.mark.slow
def test_removing_the_gate_at_an_output_keeps_the_outputs_name() -> None:
    changed = operate(operate(unit(), {"insert": SE, "at": "post"}), {"remove": "se"})
    assert [value.name for value in changed.graph.output] == ["map"]
    np.testing.assert_array_equal(answer(changed, image()), answer(unit(), image()))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_a_block_takes_the_type_of_its_value(dtype: int) -> None:
    changed = operate(unit(dtype=dtype), {"insert": SE, "at": "residual"})
    blocks = [tensor for tensor in changed.graph.initializer if tensor.name.startswith("layer.se.")]
    assert {tensor.data_type for tensor in blocks} == {dtype}
    sample = image(dtype=helper.tensor_dtype_to_np_dtype(dtype))
    reference = operate(unit(), {"insert": SE, "at": "residual"})
    if dtype == TensorProto.FLOAT16:
        np.testing.assert_allclose(answer(changed, sample), answer(reference, image()), atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 18, 20, 21, 23])
def test_se_goes_into_every_opset_without_raising_it(opset: int) -> None:
    model = unit(opset=opset)
    changed = operate(model, {"insert": SE, "at": "residual"})
    assert list(changed.opset_import) == list(model.opset_import)
    assert OnnxSurgeon(SHAPE).notes(model, changed) == ()
    reference = operate(unit(), {"insert": SE, "at": "residual"})
    np.testing.assert_allclose(answer(changed, image()), answer(reference, image()), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_the_opset_is_raised_where_a_block_needs_it_and_that_is_said() -> None:
    model = unit(opset=11)
    rule = {"insert": {"block": "se", "reduction": 2, "activation": "gelu"}, "at": "residual"}
    changed = operate(model, rule)
    assert OnnxSurgeon(SHAPE).notes(model, changed)[0] == "the opset was raised from 11 to 20: a block needs it"
    assert changed.opset_import[1] == model.opset_import[1]
    np.testing.assert_allclose(answer(changed, image()), answer(operate(unit(), rule), image()), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_raised_file_keeps_its_words_and_computes_the_same() -> None:
    model = unit(UNIT.replace("map = Relu (sum)", "m = ReduceMean <axes = [2, 3]> (sum) map = Mul (sum, m)"), opset=11)
    rule = {"insert": {**IDENTITY, "activation": "gelu"}, "at": "residual"}
    changed = operate(model, rule)
    assert [item.version for item in changed.opset_import] == [20, 3]
    assert changed.metadata_props == model.metadata_props
    assert changed.graph.node[0] == model.graph.node[0]
    mean = next(node for node in changed.graph.node if node.output[0] == "m")
    assert len(mean.input) == 2
    assert mean.doc_string == "where m is made"
    np.testing.assert_allclose(answer(changed, image()), answer(model, image()), atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", BLOCKS.names())
def test_every_block_reaches_onnx_and_older_opsets(name: str) -> None:
    """Each filled graph is compared with its module when it is made."""
    exported = Blocks()
    for index, options in enumerate(BLOCKS.examples(name)[:4]):
        site = Site(f"b/x[{index}]", "b", "x", 1, 16, 9, 7, "v", (), Ref(name, options))
        with torch.random.fork_rng():
            torch.manual_seed(index)
            graph = exported.site(site, options.build(16))
        sample = image((16, 9, 7))
        for opset in (7, 13):
            needed = onnx_opset.needed(graph, opset)
            lowered = onnx_opset.lower(graph, needed)
            lowered.opset_import[0].version = needed
            onnx.checker.check_model(lowered, full_check=True)
            np.testing.assert_allclose(answer(lowered, sample), answer(graph, sample), atol=1e-5)


class Narrow(nn.Module):
    """A gate that is the weaker the more channels there are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)) / x.shape[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "exports"),
    [*((BLOCKS.examples(name)[0].build, 1) for name in ("se", "eca", "gather_excite")), (Narrow, 2)],
    ids=["se", "eca", "gather_excite", "its own"],
)
def test_one_graph_serves_all_widths_unless_a_width_is_part_of_it(
    build: Any, exports: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, export_ = [], torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *given, **named: calls.append(1) or export_(*given, **named))
    blocks = Blocks()
    for channels in (16, 32, 16):
        site = Site("b/x[0]", "b", "x", 1, channels, 9, 7, "v", (), Ref("se", BLOCKS.examples("se")[0]))
        block, sample = build(channels).eval(), image((channels, 9, 7))
        for parameter in block.parameters():
            # As an identity start leaves it, which hides what the rest computes.
            nn.init.zeros_(parameter)
        graph = blocks.site(site, block)
        with torch.inference_mode():
            np.testing.assert_allclose(answer(graph, sample), block(torch.from_numpy(sample)), atol=1e-5)
    assert len(calls) == exports


def test_nothing_goes_between_a_convolution_and_its_folded_norm() -> None:
    with pytest.raises(SesurgeryError, match=r"SE403.*the norm behind a is folded into its convolution"):
        operate(unit(), {"insert": SE, "at": {"placement": "module", "names": "layer.conv1"}})


def test_a_name_that_the_file_has_already_is_se405() -> None:
    with pytest.raises(SesurgeryError, match=r"SE405.*something called 'layer.conv1'"):
        operate(unit(), {"insert": SE, "at": "residual", "name": "conv1"})


def test_weights_that_do_not_fit_are_se401() -> None:
    model, surgeon = unit(), OnnxSurgeon(SHAPE)
    plan = planned(model, SHAPE, {"insert": SE, "at": "residual"})
    with pytest.raises(SesurgeryError, match=r"SE401: |SE401.*se/layer\[0\]"):
        surgeon.apply(model, plan, {"layer.se.fc1.weight": np.zeros((9, 9, 1, 1), np.float32)})


def test_a_plan_for_another_model_is_refused() -> None:
    plan = planned(unit(), SHAPE, {"insert": SE, "at": "residual"})
    other = unit()
    other.graph.node[0].output[0] = other.graph.node[1].input[0] = "renamed"
    other.graph.node[2].input[0] = "renamed"
    with pytest.raises(SesurgeryError, match="SE403"):
        OnnxSurgeon(SHAPE).apply(other, plan)


# --- what is kept, and what is left alone -----------------------------------------------------------------------------


def test_a_plan_without_sites_gives_an_equal_model() -> None:
    model = unit()
    assert operate(model, {"insert": SE, "at": "residual", "min_channels": 999, "expect": 0}) == model


@pytest.mark.slow
def test_everything_but_the_block_is_kept() -> None:
    model = unit()
    changed = operate(model, {"insert": SE, "at": "residual"})
    for field in ("ir_version", "producer_name", "model_version", "doc_string", "opset_import", "metadata_props"):
        assert getattr(changed, field) == getattr(model, field), field
    for field in ("doc_string", "input", "output", "value_info", "name"):
        assert getattr(changed.graph, field) == getattr(model.graph, field), field
    old = {node.output[0]: node for node in changed.graph.node}
    assert all(old[node.output[0]] == node for node in model.graph.node if node.op_type != "Add")
    assert list(changed.graph.initializer)[:3] == list(model.graph.initializer)


BRANCHING = UNIT.replace("map = Relu (sum)", "flag = Constant <value = bool {1}> () map = Identity (t)")


def branching() -> onnx.ModelProto:
    """The unit with an If behind it whose branch reads the sum from outside."""
    model = unit(BRANCHING)
    inner = helper.make_graph(
        [helper.make_node("Neg", ["sum"], ["negated"], name="inside")],
        "branch",
        [],
        [helper.make_tensor_value_info("negated", TensorProto.FLOAT, None)],
    )
    last = model.graph.node[-1]
    last.CopyFrom(
        helper.make_node("If", ["flag"], ["map"], name="choose", then_branch=inner, else_branch=copy.deepcopy(inner))
    )
    return model


@pytest.mark.slow
def test_a_subgraph_is_left_alone_with_a_reason_and_kept() -> None:
    model = branching()
    assert [leaf.path for leaf in OnnxSurgeon(SHAPE).leaves(model)] == ["choose"]
    changed = operate(model, {"insert": IDENTITY, "at": "residual"})
    np.testing.assert_allclose(answer(changed, image()), answer(model, image()), atol=1e-6, rtol=0)


def test_a_value_that_a_subgraph_reads_is_not_rerouted_behind_its_back() -> None:
    with pytest.raises(SesurgeryError, match=r"SE403.*map reads sum where nothing can be put between"):
        operate(branching(), {"insert": SE, "at": {"placement": "tensor", "name": "sum"}})


@pytest.mark.slow
def test_functions_and_custom_domains_are_left_alone() -> None:
    model = unit(UNIT.replace("map = Relu (sum)", "map = custom.Twice (sum)"))
    relu = helper.make_node("Relu", ["x"], ["y"])
    function = helper.make_function("custom", "Twice", ["x"], ["y"], [relu], [helper.make_opsetid("", 17)])
    model.functions.append(function)
    (leaf,) = OnnxSurgeon(SHAPE).leaves(model)
    assert "function Twice" in leaf.why
    changed = operate(model, {"insert": IDENTITY, "at": "residual"})
    assert list(changed.functions) == [function]
    np.testing.assert_allclose(answer(changed, image()), answer(model, image()), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_weights_in_constant_nodes_and_in_the_inputs_are_weights() -> None:
    model = unit()
    first = model.graph.initializer[0]
    model.graph.node.insert(0, helper.make_node("Constant", [], [first.name], value=first))
    del model.graph.initializer[0]
    second = model.graph.initializer[0]
    model.graph.input.append(helper.make_tensor_value_info(second.name, TensorProto.FLOAT, second.dims))
    changed = operate(model, {"insert": IDENTITY, "at": "residual"})
    assert list(changed.graph.input) == list(model.graph.input)
    np.testing.assert_allclose(answer(changed, image()), answer(model, image()), atol=1e-6, rtol=0)


# --- files of torchvision's networks ----------------------------------------------------------------------------------


def exported(name: str, folder: Path) -> onnx.ModelProto:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision.models.get_model(name).eval()
    export(network, (3, 64, 64), folder / "net.onnx", Export(check_batches=(1,)))
    return onnx_io.load(folder / "net.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("mobilenet_v3_small", 9), ("efficientnet_b0", 16)])
def test_every_se_of_an_exported_network_is_found_and_removed(name: str, count: int, tmp_path: Path) -> None:
    model = exported(name, tmp_path)
    changed = operate(model, {"remove": "se", "expect": count}, shape=(3, 64, 64))
    pools = [node for node in changed.graph.node if node.op_type == "ReduceMean"]
    assert len(pools) == 1, "the classifier's own pool stays"
    assert len(changed.graph.initializer) < len(model.graph.initializer)
    assert answer(changed, image((3, 64, 64))).shape == (2, 1000)
    empty = {"insert": SE, "at": "post", "min_channels": 10**6, "expect": 0}
    assert operate(model, empty, shape=(3, 64, 64)) == model


class Small(nn.Module):
    """One unit with a SE, for torch's older exporter."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv, self.bn, self.act = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardswish()
        self.se = torchvision.ops.SqueezeExcitation(8, 4, scale_activation=nn.Hardsigmoid)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.se(self.act(self.bn(self.conv(x))))
        return self.fc(x.mean((2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("opset", [9, 11, 13, 17])
def test_files_of_torchs_older_exporter(opset: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, buffer = Small().eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, 8, 8),), buffer, dynamo=False, opset_version=opset)
    model, shape = onnx.load_from_string(buffer.getvalue()), (3, 8, 8)
    plan = planned(model, shape, {"replace": "se", "insert": IDENTITY, "name": "gate"})
    assert [site.key for site in plan.sites] == ["gate/[0]"]
    assert [(gone.scope, gone.channels) for gone in plan.removals] == [("se", 8)]
    changed = operate(model, {"replace": "se", "insert": IDENTITY, "name": "gate"}, shape=shape)
    network.se = nn.Identity()
    sample = image(shape, batch=1)
    with torch.inference_mode():
        expected = network(torch.from_numpy(sample)).numpy()
    np.testing.assert_allclose(answer(changed, sample), expected, atol=1e-5)
    assert changed.opset_import == model.opset_import


# --- what the view leaves out or draws as one -------------------------------------------------------------------------


def test_a_dead_branch_carries_no_block_and_is_said_to_be_dead() -> None:
    dead = "c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (sum, layer.conv1.weight) waste = Add (c, sum)"
    model = unit(UNIT.replace("map = Relu (sum)", f"{dead} map = Relu (sum)"))
    surgeon = OnnxSurgeon(SHAPE)
    assert [(leaf.path, leaf.why.partition(":")[0]) for leaf in surgeon.leaves(model)] == [
        ("waste", "nobody reads what it computes")
    ]
    plan = planned(model, SHAPE, {"insert": SE, "at": "residual", "expect": 1})
    assert [site.value for site in plan.sites] == ["b"]


@pytest.mark.parametrize(("named", "expected"), [("/unit/attn/Split", "unit.attn"), ("node_Split_522", "unit.mixer")])
def test_a_split_that_does_not_say_where_it_was_is_beside_what_it_divides(named: str, expected: str) -> None:
    """As torch's exporter leaves a `chunk`."""
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["": 20]> net (float[N, 4, 6, 6] x) => (float[N, 2, 6, 6] y) {
        a = Relu (x) b, c = Split <axis = 1, num_outputs = 2> (a) y = Mul (b, c)
    }""")
    for node, name in zip(model.graph.node, ("/unit/mixer/Relu", named, "/unit/mixer/Mul"), strict=True):
        node.name = name
    view = OnnxSurgeon(SHAPE).view(model)
    assert {view["b"].scope, view["c"].scope} == {expected}


def test_slices_that_cut_a_map_into_all_its_channels_are_one_split() -> None:
    view = view_of(
        "one = Constant <value = int64[1] {1}> () nil = Constant <value = int64[1] {0}> () "
        "three = Constant <value = int64[1] {3}> () much = Constant <value = int64[1] {99}> () "
        "a = Slice (x, nil, three, one) b = Slice (x, three, much, one) y = Concat <axis = 1> (b, a)"
    )
    assert view == (
        "x = input() : 4x6x6\na() = other(x)\na = other(a()) [piece 0] : 3x6x6\nb = other(a()) [piece 1] : 1x6x6\n"
        "y = concat(b, a) : 4x6x6\noutput() = output(y)"
    )


def test_a_batch_norm_with_its_scale_in_two_more_nodes_is_one_norm() -> None:
    weights = "w = Constant <value = float[4] {1.0, 2.0, 1.0, 2.0}> () k = Constant <value = float[4, 1, 1] "
    body = f"{weights} {{1.0, 2.0, 3.0, 4.0}}> () n = BatchNormalization (x, w, w, w, w) m = Mul (n, k) y = Add (m, k)"
    assert view_of(body, opset=9) == "x = input() : 4x6x6\ny = norm(x) : 4x6x6\noutput() = output(y)"


def test_a_map_that_keeps_its_channels_last_has_the_channels_of_any_other() -> None:
    body = (
        "t = Transpose <perm = [0, 2, 3, 1]> (x) r = Relu (t) p = ReduceMean <axes = [1, 2]> (r) "
        "s = Sigmoid (p) m = Mul (r, s) y = Transpose <perm = [0, 3, 1, 2]> (m)"
    )
    assert view_of(body, opset=13) == (
        "x = input() : 4x6x6\nt = pass(x) : 4x6x6\nr = act(t) : 4x6x6\np = global_pool(r) : 4x1x1\n"
        "s = act(p) : 4x1x1\nm = mul(r, s) : 4x6x6\ny = pass(m) : 4x6x6\noutput() = output(y)"
    )


def test_the_input_of_a_converted_file_may_keep_its_channels_last() -> None:
    text = "t = Transpose <perm = [0, 3, 1, 2]> (x) y = Relu (t)"
    assert "x = input() : 4x6x6" in view_of(text, inputs="float[N, 6, 6, 4] x")


# --- weights in other files -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_weights_in_several_files_never_enter_memory_and_arrive_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, reference = unit(), unit()
    folder = tmp_path / "in"
    folder.mkdir()
    for tensor in model.graph.initializer:
        data = tensor.raw_data
        (folder / f"{tensor.name}.data").write_bytes(b"other" * 3 + data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", f"{tensor.name}.data"), ("offset", "15"), ("length", str(len(data)))):
            tensor.external_data.add(key=key, value=value)
    written(model, folder / "net.onnx")
    monkeypatch.setattr("sesurgery.onnxgraph.external_data.SMALL", 100)
    referring = onnx_io.load(folder / "net.onnx", weights=False)
    assert not any(tensor.raw_data for tensor in referring.graph.initializer)
    whole = onnx_io.load(folder / "net.onnx")
    assert [item.raw_data for item in whole.graph.initializer] == [
        item.raw_data for item in reference.graph.initializer
    ]
    apply_file(folder / "net.onnx", tmp_path / "one" / "net.onnx")
    monkeypatch.setattr(onnx_io, "LIMIT", 1000)
    apply_file(folder / "net.onnx", tmp_path / "two" / "net.onnx")
    assert (tmp_path / "two" / "net.onnx.data").is_file()
    assert not (tmp_path / "one" / "net.onnx.data").exists()
    expected = answer(reference, image())
    for name in ("one", "two"):
        found = answer(onnx_io.load(tmp_path / name / "net.onnx"), image())
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("length", ["7", "576"])
def test_a_data_file_that_is_too_short_is_se602(length: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sesurgery.onnxgraph.external_data.SMALL", 100)
    model = unit()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="short.data")
    tensor.external_data.add(key="length", value=length)
    (tmp_path / "short.data").write_bytes(b"12345678")
    written(model, tmp_path / "net.onnx")
    with pytest.raises(SesurgeryError, match=r"SE602.*layer.conv1.weight"):
        onnx_io.load(tmp_path / "net.onnx", weights=False)


# --- hostile files ----------------------------------------------------------------------------------------------------


def written(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def apply_file(path: Path, out: Path) -> None:
    """The verb on a file, as the command line calls it."""
    spec = pipeline.load_spec(
        {
            "version": 1,
            "model": {"source": "onnx", "name": str(path)},
            "input": {"shape": list(SHAPE)},
            "surgery": [{"insert": IDENTITY, "at": "residual"}],
        }
    )
    pipeline.apply_onnx(pipeline.FileRequest(spec, pipeline.Workspace(out.parent), "x.yaml", out=out))


def _truncated(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString()[:-40]


def _cyclic(model: onnx.ModelProto) -> bytes:
    model.graph.node[0].input[0] = "b"
    return model.SerializeToString()


def _dangling(model: onnx.ModelProto) -> bytes:
    model.graph.node[3].input[0] = "nowhere"
    return model.SerializeToString()


def _twice(model: onnx.ModelProto) -> bytes:
    model.graph.node[1].output[0] = "a"
    return model.SerializeToString()


def _outside(location: str, model: onnx.ModelProto) -> bytes:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model.SerializeToString()


@pytest.mark.parametrize(
    "damage",
    [
        _truncated,
        _cyclic,
        _dangling,
        _twice,
        functools.partial(_outside, "../weights.data"),
        functools.partial(_outside, "/etc/hostname"),
        functools.partial(_outside, "link.data"),
        functools.partial(_outside, "missing.data"),
    ],
    ids=[
        "truncated",
        "cyclic",
        "dangling",
        "one name twice",
        "dots",
        "absolute",
        "link",
        "missing",
    ],
)
def test_a_hostile_file_is_se602_and_nothing_is_written(damage: Any, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (tmp_path / "weights.data").write_bytes(b"\0" * 576)
    (folder / "link.data").symlink_to(tmp_path / "weights.data")
    path = folder / "net.onnx"
    path.write_bytes(damage(unit()))
    with pytest.raises(SesurgeryError, match=r"SE602|SE408"):
        apply_file(path, out / "changed.onnx")
    assert not out.exists()


def mutated(seed: int) -> bytes:
    """The unit with one thing wrong: in its wiring, its types, its attributes or its bytes."""
    rng, model = random.Random(seed), unit()
    nodes = model.graph.node
    node = rng.choice(nodes)
    names = [name for item in nodes for name in (*item.input, *item.output)]
    match rng.randrange(9):
        case 0:
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        case 1:
            node.output[0] = rng.choice(names)
        case 2:
            node.op_type = rng.choice(["Conv", "Add", "Relu", "Mul", "If", "Nonsense", "Concat", "Gemm", "Split", ""])
        case 3:
            nodes.remove(node)
        case 4:
            tensor = rng.choice(model.graph.initializer)
            tensor.dims[rng.randrange(4)] = rng.choice([0, 1, 5, 2**40])
        case 5:
            node.attribute.add(name=rng.choice(["group", "pads", "strides"]), type=onnx.AttributeProto.INT, i=-1)
        case 6:
            node.domain = rng.choice(["custom", "ai.onnx", "nobody"])
        case 7:
            nodes.insert(0, node)
        case _:
            raw = bytearray(model.SerializeToString())
            for _ in range(rng.randrange(1, 8)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            return bytes(raw)
    return model.SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_a_mutated_file_gives_a_clear_error_or_a_valid_model(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sesurgery.networks.onnx_network.OnnxSurgeon", lambda shape, told: _surgeon(shape))
    path, out = tmp_path / "net.onnx", tmp_path / "changed.onnx"
    path.write_bytes(mutated(seed))
    try:
        apply_file(path, out)
    except SesurgeryError:
        assert not out.exists()
        return
    before, after = onnx_io.load(path), onnx_io.load(out)
    try:
        expected = answer(before, image())
    except Exception:
        # What no engine runs cannot be compared.
        return
    if not np.abs(expected).max() < 1e30:
        # Weights of such a size overflow in the block's sum.
        return
    np.testing.assert_allclose(answer(after, image()), expected, atol=1e-5)


BLUR = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16


@pytest.mark.parametrize(("filters", "sites"), [(np.stack([BLUR] * 4), 1), (np.stack([BLUR] * 3 + [-BLUR]), 2)])
def test_one_weighted_mean_for_all_channels_is_a_pool_and_not_a_convolution(filters, sites) -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[1,3,8,8] x) => (float[1,5] y) {
      c = Conv(x, w)
      b = Conv<group = 4, strides = [2, 2], pads = [1, 1, 1, 1]>(c, blur)
      r = Relu(b)
      p = GlobalAveragePool(r)
      f = Flatten(p)
      y = MatMul(f, head)
    }""")
    weights = {"w": np.ones((4, 3, 1, 1), np.float32), "blur": filters[:, None], "head": np.ones((4, 5), np.float32)}
    for name, weight in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    assert len(planned(model, (3, 8, 8), {"insert": SE, "at": "conv"}).sites) == sites
