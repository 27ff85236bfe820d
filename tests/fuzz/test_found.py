"""What once ended in a traceback, a dead process or a broken file, each by name."""

import itertools
import json
import re
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from sesurgery import pipeline
from sesurgery.artifacts import digest_file
from sesurgery.backends.base import TensorInfo
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.backends.onnxruntime_graph.session import Session
from sesurgery.diagnostics import SesurgeryError, SpecError
from sesurgery.lowering.base import Edit, Lowered, Pass, run
from sesurgery.lowering.examples import model as parsed
from sesurgery.lowering.passes.fold_norms import FoldNorms
from sesurgery.lowering.passes.gate_epilogue import GateEpilogue
from sesurgery.lowering.passes.linear_to_conv import LinearToConv
from sesurgery.lowering.passes.squeeze_hoist_spatial import SqueezeHoistSpatial
from sesurgery.networks.weights import load_weights
from sesurgery.onnxgraph import io as onnx_io
from sesurgery.onnxgraph import numerics as _numerics
from sesurgery.onnxgraph.simplify import simplified
from sesurgery.reports import wording
from sesurgery.reports.plots import latency as latency_plots
from sesurgery.serving import interface, predict
from sesurgery.spec.parity import Tolerance
from sesurgery.spec.source import SpecText
from sesurgery.training import checkpoint
from sesurgery.training.preprocessing import Preprocessing
from sesurgery.verification.estimates import Stats
from sesurgery.verification.latency import EngineTiming, LatencyReport
from sesurgery.verification.noise import noise
from sesurgery.verification.parity import PARITY, BatchParity, EngineParity, compare
from sesurgery.workspace import manifest_path, read_manifest
from sesurgery.workspace.measurements import Of
from sesurgery.workspace.sample_files import arrays_of
from tests.fuzz.oracle import cli

HEAD = "version: 1\nmodel: {source: timm, name: resnet18}\ninput: {shape: [3, 64, 64]}\n"
RULE = "surgery: [{insert: se, at: residual}]\n"
SPECS = {
    "a rule that is a word": (HEAD + "surgery: [se]\n", "SE103", (4, 11)),
    "5000 digits": (HEAD + f"surgery: [{{insert: se, at: residual, expect: {'9' * 5000}}}]\n", "SE104", (4, 46)),
    "5000 hexadecimal digits": (HEAD + RULE + f"export: {{check_batches: [0x{'f' * 5000}]}}\n", "SE104", (5, 26)),
    "an escape beyond Unicode": (HEAD + RULE + 'name: "\\UFFFFFFFF"\n', "SE002", (5, 10)),
    "half a character": (HEAD + RULE + 'name: "\\uD800"\n', "SE104", (5, 7)),
    "a zero byte": (HEAD + RULE + 'name: "a\\0b"\n', "SE104", (5, 7)),
    "a name of 300 characters": (HEAD + RULE + f"name: {'n' * 300}\n", "SE104", (5, 7)),
    "a rate beyond fp32": (HEAD + RULE + "train: {optimizer: {lr: 1e308}}\n", "SE104", (5, 25)),
    "2**40 threads": (HEAD + RULE + "train: {threads: 1099511627776}\n", "SE104", (5, 18)),
    "a million threads": (HEAD + RULE + "latency: {threads: 1000000}\n", "SE104", (5, 20)),
    "a batch of 10**9": (HEAD + RULE + "export: {check_batches: [1000000000]}\n", "SE104", (5, 26)),
    "a merge of a word": (HEAD + RULE + "train:\n  <<: hello\n", "SE103", (6, 7)),
    "a merge of numbers": (HEAD + RULE + "train:\n  <<: [1, 2]\n", "SE103", (6, 8)),
    "two merges": (HEAD + RULE + "train: {<<: {epochs: 3}, <<: {epochs: 4}}\n", "SE003", (5, 26)),
    "an input of 12 GB": (HEAD.replace("64, 64", "32768, 32768") + RULE, "SE104", (3, 16)),
    "an optimiser that nobody has": (HEAD + RULE + "train: {optimizer: {name: '!sgd'}}\n", "SE105", (5, 27)),
    "300 rules": (HEAD + "surgery:\n" + "  - {insert: se, at: residual}\n" * 300, "SE104", (5, 3)),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_spec(name, tmp_path):
    text, code, place = SPECS[name]
    path = tmp_path / "net.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        pipeline.load_spec(path)
    found = caught.value.diagnostics[0]
    assert (found.code, (found.span.line, found.span.column)) == (code, place)
    assert max(map(len, caught.value.render().splitlines())) < 400


def test_a_spec_of_50_megabytes_is_not_read(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_bytes(b"a: " + b"x" * 50_000_000)
    with pytest.raises(SpecError, match="larger than 256 KiB"):
        pipeline.load_spec(path)


def test_20000_mistakes_are_not_all_printed():
    text = "{" + ", ".join(itertools.repeat("a: 1", 15_000)) + "}"
    with pytest.raises(SpecError, match="and 14949 more") as caught:
        SpecText("net.yaml", text)
    assert len(caught.value.render()) < 50_000


def test_a_merge_of_mappings_is_taken_in_order():
    data = SpecText("net.yaml", "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {<<: [*a, *b], y: 3}\n").data
    assert data["c"] == {"x": 1, "y": 3, "z": 2}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!<>|?'\"\\#%@` \n\t0x1e.~\u0085\ufeff"), max_size=60))
def test_any_text_is_data_or_a_mistake_with_its_place(text):
    places = []
    try:
        data = SpecText("net.yaml", text).data
    except SpecError as error:
        places, data = [(item.span.line, item.span.column) for item in error.diagnostics], {}
    assert isinstance(data, dict)
    assert all(line >= 1 and column >= 1 for line, column in places)


# --- ONNX files -------------------------------------------------------------------------------------------------------


def network(batch="batch", kind=TensorProto.FLOAT, extra_input=None):
    """A convolution and a gate over it, in one float type."""
    dtype, numbers = helper.tensor_dtype_to_np_dtype(kind), np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((numbers.normal(size=shape) / 6).astype(dtype), name)
        for name, shape in {"w": (8, 3, 3, 3), "w1": (8, 4), "w2": (4, 8)}.items()
    ]
    weights.append(numpy_helper.from_array(np.array([-1, 8, 1, 1]), "shape"))
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["x"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["x"], ["z"]),
        helper.make_node("Flatten", ["z"], ["f"]),
        helper.make_node("MatMul", ["f", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["e"]),
        helper.make_node("Sigmoid", ["e"], ["g"]),
        helper.make_node("Reshape", ["g", "shape"], ["s"]),
        helper.make_node("Mul", ["x", "s"], ["output"]),
    ]
    inputs = [helper.make_tensor_value_info("input", kind, [batch, 3, 8, 8])]
    inputs += [extra_input] if extra_input else []
    output = helper.make_tensor_value_info("output", kind, [batch, 8, 8, 8])
    graph = helper.make_graph(nodes, "net", inputs, [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def written(folder, model):
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("batch", [-1, 0])
def test_a_size_of_minus_one_or_zero_is_an_open_one(batch, tmp_path):
    done = pipeline.lower(
        pipeline.LowerRequest(written(tmp_path, network(batch=batch)), tmp_path / "out.onnx", "onnxruntime")
    )
    assert done.difference is not None
    assert done.changed


def test_nodes_out_of_order_are_sorted_as_onnx_runtime_does(tmp_path):
    model = network()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    loaded = onnx_io.load(written(tmp_path, model))
    assert [node.op_type for node in loaded.graph.node] == [node.op_type for node in nodes]
    nodes[0].input[0] = nodes[-1].output[0]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with pytest.raises(SesurgeryError, match="SE602"):
        onnx_io.load(written(tmp_path, model))


def test_a_constant_without_a_value_is_named(tmp_path):
    model = network()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["unread"], name="odd", other=1.0))
    model.graph.node[0].attribute[0].name = "v\ufffd1ue"
    loaded = network()
    loaded.graph.CopyFrom(model.graph)
    with pytest.raises(SesurgeryError, match=r"SE602.*cannot be simplified: .*'odd'"):
        simplified(loaded)


def test_no_constant_is_made_for_more_positions_than_memory_holds(tmp_path):
    model = network()
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 2**31
    for dim in model.graph.output[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 2**31
    source = written(tmp_path, model)
    request = pipeline.LowerRequest(
        source, tmp_path / "out.onnx", "onnxruntime", passes=("squeeze_hoist_spatial",), verify=False
    )
    edits = pipeline.lower(request).edits["squeeze_hoist_spatial"]
    assert not any(edit.changed for edit in edits)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("float[4,2,3,3] w", "weights are for 2 channels, of a map with 4"),
        ("float[4,4,1,1] w", r"a convolution of \[3, 3\] whose weights are \[1, 1\]"),
    ],
)
def test_a_squeeze_behind_a_convolution_whose_weights_do_not_fit_is_left_alone(given, reason):
    model = parsed(
        f"""(float[1,4,8,8] x, {given}, float[2,4,1,1] v, float[4,2,1,1] t) => (float[1,4,8,8] y) {{
            u = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w)
            z = GlobalAveragePool(u)  d = Conv(z, v)  a = Relu(d)  e = Conv(a, t)  g = Sigmoid(e)  y = Mul(u, g) }}"""
    )
    weights = model.graph.input[1:]
    for value in weights:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), value.name))
    del model.graph.input[1:]
    (edit,) = SqueezeHoistSpatial().apply(model).edits
    assert not edit.changed
    assert re.search(reason, edit.why)


def test_a_graph_that_no_runtime_takes_is_no_mistake_of_the_pass_that_fails_on_it():
    class Fails(FoldNorms):
        def apply(self, model):
            raise ValueError("no")

    fits, too_few = (
        parsed(f"(float[1,4,8,8] x, float[4,{channels},1,1] w) => (float[1,4,8,8] y) {{ y = Conv(x, w) }}")
        for channels in (4, 2)
    )
    with pytest.raises(SesurgeryError, match=r"SE607.*cannot handle this graph: ValueError: no"):
        run(fits, [Fails()])
    with pytest.raises(SesurgeryError, match=r"SE602.*ONNX Runtime cannot (load|run) the graph(.|\n)*Conv"):
        run(too_few, [Fails()])


def test_nothing_is_proved_on_more_values_than_memory_holds(tmp_path):
    source = written(tmp_path, network(batch=2**40))
    with pytest.raises(SesurgeryError, match=r"SE602.*nothing can be proved"):
        pipeline.lower(pipeline.LowerRequest(source, tmp_path / "out.onnx", "onnxruntime"))
    assert not (tmp_path / "out.onnx").exists()


def test_a_sequence_as_input_is_named(tmp_path):
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    source = written(tmp_path, network(extra_input=helper.make_value_info("many", kind)))
    with pytest.raises(SesurgeryError, match="'many' is a sequence"):
        pipeline.lower(pipeline.LowerRequest(source, tmp_path / "out.onnx", "onnxruntime"))


@pytest.mark.parametrize("change", ["shape", "type"])
def test_data_that_do_not_fill_their_shape_are_named(change, tmp_path):
    model = network()
    weight = model.graph.initializer[0]
    if change == "shape":
        weight.dims[:] = [1]
    else:
        weight.data_type = TensorProto.DOUBLE
    with pytest.raises(SesurgeryError, match=r"SE602.*tensor 'w' of (1|8x3x3x3) (FLOAT|DOUBLE) needs \d+ bytes"):
        pipeline.lower(pipeline.LowerRequest(written(tmp_path, model), tmp_path / "out.onnx", "onnxruntime"))


def test_data_without_a_length_are_as_long_as_their_shape(tmp_path):
    source = tmp_path / "net.onnx"
    onnx.save(network(), source, save_as_external_data=True, location="net.data", size_threshold=0)
    model = onnx.load(source, load_external_data=False)
    for tensor in model.graph.initializer:
        kept = [entry for entry in tensor.external_data if entry.key != "length"]
        del tensor.external_data[:]
        tensor.external_data.extend(kept)
    source.write_bytes(model.SerializeToString())
    pipeline.lower(pipeline.LowerRequest(source, tmp_path / "out.onnx", "onnxruntime"))
    onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    loaded = {tensor.name: len(tensor.raw_data) for tensor in onnx_io.load(source).graph.initializer}
    assert loaded == {tensor.name: len(tensor.raw_data) for tensor in network().graph.initializer}


NORMED = """(float[N,4,6,5] x) => (float[N,8,6,5] y)
    <float[8,4,1,1] w, float[8] g, float[8] h, float[8] m, float[8] v = {1.0, 2.0, 0.5, 1.0, 1.5, 1.0, 3.0, 0.25}>
    { u = Conv(x, w) y = BatchNormalization(u, g, h, m, v) }"""
GATED = """(float[N,4,6,5] x) => (float[N,8,6,5] y) <float[8,4,1,1] w, float[3,8] a, float[3] b, float[8,3] c,
    int64[2] flat = {-1, 8}, int64[4] back = {-1, 8, 1, 1}> { u = Conv<group=%s>(x, w)
    z = ReduceMean<axes=[2, 3], keepdims=%s>(u) f = Reshape(z, flat) d = Gemm<transB=1>(f, a, b) r = Relu(d)
    e = Gemm<transB=1>(r, c) s = Sigmoid(e) gate = Reshape(s, back) y = Mul(u, gate) }"""


def test_what_the_checker_said_of_the_file_before_is_no_mistake_of_a_pass():
    # ONNX Runtime takes an input without a shape; the checker asks for one.
    model = parsed(NORMED)
    model.graph.input.append(helper.make_tensor_value_info("many", TensorProto.INT64, None))
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model, full_check=True)
    assert len(run(model, [FoldNorms()]).model.graph.node) == 1


def test_a_type_that_was_not_declared_may_be_inferred():
    model = parsed(NORMED)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.UNDEFINED
    assert len(run(model, [FoldNorms()]).model.graph.node) == 1


def test_axes_are_kept_by_a_one_alone():
    # Minus one drops them, as zero does, so the squeeze must be written anew.
    lowered = run(parsed(GATED % (1, -1), opset=17), [LinearToConv()], verify=True)
    assert [edit.changed for edit in lowered.edits] == [True]


@pytest.mark.parametrize(
    ("weights", "nodes", "why"),
    [
        ("float[2,1] b", "d = Gemm<transB=1>(f, w, b) e = Relu(d)", "not a constant bias"),
        ("float[2,1] b", "d = Gemm<transB=1>(f, w) e = Add(d, b)", "a constant of shape [2, 1]"),
        ("float[1,2,1,1] b", "d = Gemm<transB=1>(f, w) g = Reshape(d, back) e = Add(g, b)", ""),
        ("float[2,2,1,1] b", "d = Gemm<transB=1>(f, w) g = Reshape(d, back) e = Add(g, b)", "shape [2, 2, 1, 1]"),
        ("float[2] b", "d = Gemm<transB=1>(f, w) e = Add(b, d)", ""),
    ],
)
def test_a_constant_of_a_gate_is_one_number_a_channel_or_left_alone(weights, nodes, why):
    """By the way it is broadcast, not by its size: a column of numbers is one for each sample of the batch."""
    shape = f"int64[4] back = {{-1, 2, 1, 1}}, float[2,2] w, {weights}"
    last = "s = Sigmoid(e)" if "Reshape" in nodes else "r = Sigmoid(e) s = Reshape(r, back)"
    model = parsed(
        f"(float[2,2,4,5] x) => (float[2,2,4,5] y) <{shape}> "
        f"{{ z = GlobalAveragePool(x) f = Flatten(z) {nodes} {last} y = Mul(x, s) }}"
    )
    (edit,) = run(model, [LinearToConv()], verify=True).edits
    assert (edit.changed, why in edit.why) == (not why, True)


@pytest.mark.parametrize(("bias", "folded"), [("float[3]", True), ("float[1]", True), ("float[2,1]", False)])
def test_a_norm_is_folded_into_a_layer_whose_bias_is_one_number_a_channel(bias, folded):
    model = parsed(
        f"(float[2,4] x) => (float[2,3] y) <float[4,3] w, {bias} b, float[3] s> {{ d = Gemm(x, w, b) y = Mul(d, s) }}"
    )
    assert (len(run(model, [FoldNorms()], verify=True).model.graph.node) == 1) == folded


def test_a_block_inside_a_block_that_is_replaced_is_named(tmp_path):
    """A gate in the branch of a gate: with the outer one, what reads the inner one goes."""
    weights = ", ".join(f"float[4,4,1,1] {name} = {{{', '.join(['0.5'] * 16)}}}" for name in ("w", "a", "b"))
    model = parsed(
        f"(float[N,4,6,5] x) => (float[N,4,6,5] y) <{weights}> {{ u = Conv(x, w) z = GlobalAveragePool(u)"
        " c = Conv(z, a) p = GlobalAveragePool(c) i = Sigmoid(p) m = Mul(c, i) d = Conv(m, b) s = Sigmoid(d)"
        " y = Mul(u, s) }"
    )
    for node in model.graph.node:
        node.name = f"/{'inner' if node.output[0] in 'cpim' else 'outer'}/se/{node.op_type}_{node.output[0]}"
    written(tmp_path, model)
    spec = tmp_path / "net.yaml"
    spec.write_text(
        "version: 1\nmodel: {source: onnx, name: net.onnx}\ninput: {shape: [4, 6, 5]}\n"
        "surgery: [{replace: any, insert: eca}]\n"
    )
    done = cli("apply", spec, "-o", tmp_path / "out.onnx")
    assert done.kind == "refused"
    assert "is removed with the block around it" in done.text
    assert not (tmp_path / "out.onnx").exists()


WRONG = """(float[N,4] x) => (float[N,7] y) <float[4,3] w, int64[2] one = {-1, 2}, int64[2] other = {-1, 3}>
    { d = MatMul(x, w) shape = Max(one, other) y = Reshape(d, shape) }"""


def test_a_wrong_size_of_an_output_does_not_stay_in_what_is_written(tmp_path):
    """Inference stops before the output of what goes in, so nobody contradicts it, and not in what comes out."""
    source = written(tmp_path, parsed(WRONG))
    onnx.checker.check_model(source, full_check=True)
    done = cli("lower", source, "-o", tmp_path / "out.onnx", "--for", "onnxruntime")
    assert done.kind == "done"
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)


def test_a_pass_that_brings_a_wrong_size_to_light_is_not_to_blame():
    class Folding(Pass):
        tolerance = 0.0

        def apply(self, model):
            return Lowered(simplified(model), (Edit("shape", "it is known", changed=True),))

    lowered = run(parsed(WRONG), [Folding()], verify=True)
    onnx.checker.check_model(lowered.model, full_check=True)


@pytest.mark.parametrize("verify", [True, False])
def test_a_window_that_is_wider_than_its_map_is_named(verify, tmp_path):
    """Inference gives what it makes a size below zero; nothing computes that."""
    graph = (
        (GATED % (1, 1))
        .replace("f = Reshape", "k = Conv<kernel_shape=[1, 127]>(z, v) f = Reshape")
        .replace("<float[8,4,1,1] w", "<float[8,8,1,127] v, float[8,4,1,1] w")
    )
    source = written(tmp_path, parsed(graph.replace("Reshape(z, flat)", "Reshape(k, flat)"), opset=17))
    request = pipeline.LowerRequest(source, tmp_path / "out.onnx", "onnxruntime", verify=verify)
    with pytest.raises(SesurgeryError, match=r"SE602.*(cannot run|'k' would be -125)"):
        pipeline.lower(request)
    assert not (tmp_path / "out.onnx").exists()


def test_a_convolution_in_no_groups_is_left_alone():
    graph = GATED.replace("keepdims=%s>(u)", "keepdims=1>(x)").replace("float[3,8] a", "float[3,4] a")
    lowered = run(parsed(graph.replace("{-1, 8}", "{-1, 4}") % 0, opset=17), [GateEpilogue()])
    assert "in 0 groups" in lowered.edits[0].why
    assert not any(edit.changed for edit in lowered.edits)


def test_the_tolerance_follows_the_type(tmp_path):
    assert _numerics.rounding(network()) == 0
    assert 1e-3 < _numerics.rounding(network(kind=TensorProto.FLOAT16)) < 0.05
    source = written(tmp_path, network(kind=TensorProto.FLOAT16))
    assert pipeline.lower(pipeline.LowerRequest(source, tmp_path / "out.onnx", "tensorrt")).changed


def test_what_is_not_finite_must_be_the_same():
    def apart(one, other):
        return _numerics.difference({"y": np.array(one)}, {"y": np.array(other)})

    assert apart([1.0, np.inf], [1.0, -np.inf]) == np.inf
    assert apart([1.0, np.nan], [1.0, np.inf]) == np.inf
    assert apart([1.0, np.nan], [1.0, np.nan]) == 0


# --- what predict reads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"resize": [200000, 200000]}, "resize"),
        ({"resize": [65536, 65536]}, "values are more than"),
        ({"crop": [60000, 60000]}, "values are more than"),
        ({"channels": 2, "mode": "RGB"}, "3 channels, not 2"),
        ({"std": [0.0]}, "std not zero"),
        ({"mean": [1.0, 2.0]}, "mean and std"),
    ],
)
def test_an_interface_asks_for_no_more_than_memory_holds(found, expected, tmp_path):
    good = Preprocessing("L", 1, (16, 16), None, 1.0, (0.5,), (0.5,))
    interface.write(tmp_path, interface.Interface("digits", ("a", "b"), good))
    assert interface.read(tmp_path).preprocessing == good
    path = tmp_path / interface.FILE
    data = json.loads(path.read_text())
    data["preprocessing"].update(found)
    path.write_text(json.dumps(data))
    with pytest.raises(SesurgeryError, match=rf"SE401.*{expected}"):
        interface.read(tmp_path)


def test_an_image_of_81_million_pixels_is_not_decoded(tmp_path):
    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")
    with pytest.raises(SesurgeryError, match="9000 x 9000 pixels"):
        predict.read_image(tmp_path / "large.png", Preprocessing("L", 1, (16, 16), None, 1.0, (0.5,), (0.5,)))


def test_an_image_that_claims_gigabytes_or_holds_no_numbers_is_named(tmp_path):
    prepared = Preprocessing("L", 1, (16, 16), None, 1.0, (0.5,), (0.5,))
    nan = tmp_path / "nan.pfm"
    nan.write_bytes(b"Pf\n2 2\n-1.0\n" + np.full(4, np.nan, "<f4").tobytes())
    with pytest.raises(SesurgeryError, match=r"SE001.*holds values that are no numbers"):
        predict.read_image(nan, prepared)
    for error in (MemoryError(), TypeError("'IFDRational' object cannot be interpreted as an integer")):

        def broken(image, error=error):
            raise error

        Image.new("L", (2, 2)).save(tmp_path / "fine.png")
        with pytest.raises(SesurgeryError, match=rf"SE001.*{type(error).__name__}"):
            predict.read_image(tmp_path / "fine.png", broken)


# --- samples for `gates FILE` and `verify FILE` ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 and no archive",
        b"",
        {"x": np.float32(1)},
        {"x": np.array(["a", "b"])},
        {"x": np.ones(3, np.complex64)},
        {"x": np.ones((2, 3)), "labels": np.array(7)},
        b"\x93NUMPY\x01\x00\x10\x00{'descr': (     ",
    ],
    ids=lambda content: str(content)[:30],
)
def test_samples_that_are_no_arrays_of_numbers_are_named(content, tmp_path):
    path = tmp_path / "samples.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    with pytest.raises(SesurgeryError, match=r"SE606.*samples\.npz"):
        arrays_of(path, ["x"], "--inputs", "labels")


def test_a_model_in_half_precision_gets_samples_of_its_type():
    model = parsed("(float16[N,4] x) => (float16[N,4] y) { y = Relu(x) }")
    assert _numerics.runner(model)({"x": np.ones((2, 4), np.float32)})["y"].dtype == np.float16
    with pytest.raises(SesurgeryError, match=r"SE602.*cannot run"):
        _numerics.runner(model)({"x": np.ones((2, 5), np.float32)})


# --- what was measured ------------------------------------------------------------------------------------------------


def test_a_measured_nan_is_read_back(tmp_path):
    logits = np.ones((4, 3), np.float32)
    report = compare(logits, np.full_like(logits, np.nan), np.zeros(4, np.int64), Tolerance(max_abs=0.1))
    of = Of("engine's digest", "weights' digest")
    PARITY.write(tmp_path, "engine", EngineParity(of, (BatchParity(1, report),)))
    (entry,) = PARITY.read(tmp_path, "engine", of).entries
    assert not entry.report.passed
    assert entry.report.nonfinite_samples == 4


def test_a_measurement_with_fewer_errors_than_margins_is_named(tmp_path):
    logits = np.ones((4, 3), np.float32)
    report = compare(logits, logits, np.zeros(4, np.int64), Tolerance(max_abs=0.1))
    PARITY.write(tmp_path, "engine", EngineParity(Of("", ""), (BatchParity(1, report),)))
    path = PARITY.file(tmp_path, "engine")
    data = json.loads(path.read_text())
    del data["entries"][0]["report"]["sample_errors"][0]
    path.write_text(json.dumps(data))
    with pytest.raises(SesurgeryError, match=r"SE401.*found 3 errors, 4 margins"):
        PARITY.read(tmp_path, "engine", Of("", ""))


def test_rounds_of_unlike_numbers_of_runs_are_named():
    EngineTiming("engine", None, ((1.0, 1.0), (1.0, 1.0)), (1.0, 1.0))
    for rounds in ((), ((),), ((1.0, 1.0), (1.0,))):
        with pytest.raises(ValueError, match="the same number of runs"):
            EngineTiming("engine", None, rounds, ())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sample_margins", [float("inf")] * 4),
        ("sample_margins", [float("nan")] * 4),
        ("sample_margins", [-1.0] * 4),
        ("sample_margins", [1e308] * 4),
        ("sample_errors", [1e308] * 4),
        ("mean_abs", 1e101),
        ("samples", 10**400),
    ],
    ids=str,
)
def test_numbers_that_no_measurement_gives_are_named(key, value, tmp_path):
    """They overflow in a percentage, a sum or the axis of a plot."""
    logits = np.ones((4, 3), np.float32)
    report = compare(logits, logits, np.zeros(4, np.int64), Tolerance(max_abs=0.1))
    PARITY.write(tmp_path, "engine", EngineParity(Of("", ""), (BatchParity(1, report),)))
    path = PARITY.file(tmp_path, "engine")
    data = json.loads(path.read_text())
    data["entries"][0]["report"][key] = value
    path.write_text(json.dumps(data))
    with pytest.raises(SesurgeryError, match=r"SE401.*engine\.parity\.json"):
        PARITY.read(tmp_path, "engine", Of("", ""))


def test_times_that_no_run_takes_are_named():
    for seconds in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match="a finite number of seconds"):
            EngineTiming("engine", None, ((1.0, seconds),), (1.0,))


def test_a_histogram_goes_by_the_runs_whatever_the_statistics_say():
    """The two are stored side by side, so a file can hold statistics of other runs."""
    stats = Stats(2, 1e9, 1, 1, 1, 1, 1e9, 1, 1, 1, 1)
    timing = EngineTiming("engine", stats, ((1.0, 2.0),), (1.0,))
    assert latency_plots.spread("x", LatencyReport(1, 1, 2, 0, 1, timing, None, None)).svg


@pytest.mark.parametrize("found", [{"min": 2**40}, {"opt": 0}, {"max": -1}])
def test_a_batch_of_a_manifest_is_one_that_a_spec_may_ask_for(found, tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"x")
    batch = {"min": 1, "opt": 1, "max": 1, **found}
    engine = {"backend": {"backend": "onnxruntime"}, "batch": batch, "shapes": []}
    write_manifest_of_an_engine(path, {"engine": engine})
    with pytest.raises(SesurgeryError, match=r"SE401.*batch"):
        read_manifest(path)


def test_an_engine_whose_smallest_batch_no_memory_holds_is_named(tmp_path):
    Image.new("L", (16, 16)).save(tmp_path / "fine.png")
    image = predict.read_image(tmp_path / "fine.png", Preprocessing("L", 1, (16, 16), None, 1.0, (0.5,), (0.5,)))
    with pytest.raises(SesurgeryError, match=r"SE606.*more than memory holds"):
        predict.batch_of([image], 2**40)


def test_half_a_character_in_a_checkpoint_is_written_out(tmp_path):
    torch.save({"\ud800": torch.zeros(3)}, tmp_path / "last.ckpt")
    with pytest.raises(SesurgeryError, match="SE401") as caught:
        load_weights(torch.nn.Linear(1, 1), tmp_path / "last.ckpt")
    assert r"\ud800" in caught.value.render()


@pytest.mark.parametrize("size", [None, 0, 2.5, True, "64"])
def test_a_recipe_without_a_size_of_batches_is_named(size, tmp_path):
    own = {"history": [], "recipe": {"batch_size": 8, "accumulate": size}}
    torch.save({"sesurgery": own, "state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(SesurgeryError, match=r"SE502.*accumulate is .*not a positive integer"):
        checkpoint.read(tmp_path / "last.ckpt")


def test_a_file_that_loads_and_does_not_take_its_own_sizes_is_named(tmp_path):
    # Whether they fit is known once it runs: the sizes are open.
    onnx.save(parsed("(float[N, M] x) => (float[K] y) { y = GlobalAveragePool(x) }"), tmp_path / "net.onnx")
    with Session(tmp_path / "net.onnx", 1) as runner:
        for use in (runner.infer, lambda feeds: runner.time(feeds, 1)):
            with pytest.raises(SesurgeryError, match=r"SE603.*cannot run .*net.onnx: .*GlobalAveragePool"):
                use({"x": np.zeros((2, 8), np.float32)})


def test_an_input_that_is_no_array_of_numbers_gets_no_noise():
    runner = SimpleNamespace(inputs=(TensorInfo("many", (1,), "seq(tensor(float)"),))
    with pytest.raises(SesurgeryError, match=r"SE606.*'many' is seq\(tensor\(float\)"):
        noise(runner, (), 2)


def test_an_input_that_no_memory_holds_gets_no_noise(tmp_path):
    onnx.save(parsed("(float[N, 4611686018427387904] x) => (float[N, K] y) { y = Relu(x) }"), tmp_path / "net.onnx")
    with Session(tmp_path / "net.onnx", 1) as runner, pytest.raises(SesurgeryError, match=r"SE606.*more than memory"):
        noise(runner, (), 2)


def test_an_engine_that_declares_no_samples_at_its_output_cannot_be_timed(tmp_path):
    """ONNX Runtime answers, and refuses to answer again into the buffer of its first answer."""
    network = parsed("(float[batch,4,7,7] x) => (float[0,4,7,7] y) { y = Relu(x) }")
    onnx.save(network, tmp_path / "net.onnx")
    feeds = {"x": np.ones((1, 4, 7, 7), np.float32)}
    with OnnxRuntime().load(tmp_path / "net.onnx") as runner, pytest.raises(SesurgeryError, match=r"SE603.*net\.onnx"):
        runner.time(feeds, 1)


@pytest.mark.parametrize("share", [1e308, -1e308, float("inf"), float("nan")])
def test_a_share_that_a_file_makes_endless_is_still_written(share):
    assert wording.percent(share).endswith(" %")


@pytest.mark.parametrize("number", [5e-324, 1e308, 1e-5, 1e22])
def test_a_spec_without_a_file_is_written_so_that_it_reads_back(number, tmp_path):
    """JSON writes 1e-05, which YAML 1.1 takes for a word; specs are read by YAML 1.2."""
    data = yaml.safe_load(HEAD.replace("}", ", kwargs: {drop_rate: 0}}", 1) + RULE)
    data["model"]["kwargs"]["drop_rate"] = number
    spec = pipeline.load_spec(data)
    (tmp_path / "spec.yaml").write_text(spec.text())
    assert pipeline.load_spec(tmp_path / "spec.yaml").digest == spec.model_copy(update={"name": "spec"}).digest


@pytest.mark.parametrize("text", ["", "null", "[[]]", '[{"batch": "x"}]', "[" * 100_000, "\udcff"])
def test_a_measurement_that_was_written_into_is_named(text, tmp_path):
    path = PARITY.file(tmp_path, "engine")
    path.parent.mkdir()
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(SesurgeryError, match=r"SE401.*engine\.parity\.json"):
        PARITY.read(tmp_path, "engine", Of("", ""))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"engine": {"backend": {}}}, "engine"),
        ({"convolutions": [1]}, "convolutions"),
        ({"notes": "x"}, "notes"),
        ({"run": "x" * 300}, "a path that no file can have"),
        ({"run": 5}, "run"),
        ({"ingredients": {"a": 1}}, "ingredients"),
        ({"choice": {"key": "x", "tried": 1}}, "choice"),
    ],
)
def test_details_of_a_manifest_have_their_types(change, expected, tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"x")
    write_manifest_of_an_engine(path, change)
    with pytest.raises(SesurgeryError, match=rf"SE401.*{expected}"):
        read_manifest(path)


def test_a_key_that_a_manifest_lacks_is_named(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"x")
    write_manifest_of_an_engine(path, {}, without="seconds")
    with pytest.raises(SesurgeryError, match=r"SE401.*x\.onnx\.manifest\.json is not a manifest: .*seconds"):
        read_manifest(path)


def write_manifest_of_an_engine(path, change, without=None):
    """As a stranger would: by hand, without a seal."""
    details = {
        "onnx": "x.onnx", "backend": "onnxruntime", "precision": "fp32", "seconds": 1.0, "convolutions": {},
        "engine": {"backend": {"backend": "onnxruntime"}, "batch": {"min": 1, "opt": 1, "max": 1}, "shapes": []},
    }  # fmt: skip
    details = {key: value for key, value in {**details, **change}.items() if key != without}
    given = {
        "kind": "engine", "name": "x", "file": "x.onnx", "sha256": digest_file(path), "versions": {}, "device": "x",
        "command": "sesurgery build-engine x.onnx", "created": "now", "details": details,
    }  # fmt: skip
    manifest_path(path).write_text(json.dumps(given))
