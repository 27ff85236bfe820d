"""Files as they are found in the field, and what is made of them before anybody looks for patterns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from sesurgery.lowering import examples
from sesurgery.lowering.base import Edit, Lowered, Pass, run
from sesurgery.lowering.preparing import prepared
from sesurgery.lowering.proof import judge
from sesurgery.onnxgraph import exact, io, numerics
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.gates import gate_branches
from sesurgery.onnxgraph.opset import convert
from sesurgery.onnxgraph.repair import repaired
from sesurgery.onnxgraph.simplify import simplified
from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

# Paddle's idioms: weights in Constant nodes, the bias reshaped and added, an Identity between, a hard sigmoid.
PADDLE = """(float[N,4,H,W] x) => (float[N,8,H,W] y)
    <float[8,4,1,1] k, float[8] b, float[3,8,1,1] d, float[8,3,1,1] e> {
    shape = Constant<value = int64[4] {1, 8, 1, 1}>()
    w = Identity(k) flat = Reshape(b, shape)
    u = Conv(x, w) t = Add(u, flat) i = Identity(t)
    z = GlobalAveragePool(i) p = Conv(z, d) a = Relu(p) q = Conv(a, e) gate = HardSigmoid<alpha = 0.2>(q)
    y = Mul(i, gate) }"""
# What torch's older exporter writes for `x.chunk(2, 1)` where the batch is open.
CHUNK = """(float[N,8,6,6] x) => (float[N,8,6,6] y) <float[4,4,1,1] w, int64 one = {1}, int64[1] zero = {0},
    int64[1] axis = {1}, int64[1] ones = {1}, int64 two = {2}> {
    s = Shape(x) c = Gather<axis = 0>(s, one) c1 = Add(c, one) half = Div(c1, two) end = Mul(half, ones)
    end2 = Mul(end, two) left = Slice(x, zero, end, axis) right = Slice(x, end, end2, axis)
    r = Conv(right, w) y = Concat<axis = 1>(left, r) }"""


def same(one: onnx.ModelProto, other: onnx.ModelProto) -> float:
    fed = numerics.feeds(one)
    return numerics.difference(numerics.outputs(one, fed), numerics.outputs(other, fed))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_constants_are_folded_and_nodes_that_do_nothing_go() -> None:
    model = examples.model(PADDLE, opset=13)
    done = simplified(model)
    assert operators(done) == [
        *("Conv", "Add", "GlobalAveragePool", "Conv", "Relu", "Conv", "HardSigmoid", "Mul"),
    ]
    assert same(model, done) == 0.0
    assert operators(model)[0] == "Constant"


def test_what_is_simple_already_stays_byte_for_byte() -> None:
    model = simplified(examples.model(PADDLE, opset=13))
    assert simplified(model).SerializeToString() == model.SerializeToString()


def test_the_bias_becomes_part_of_the_convolution_and_the_gate_is_lowered() -> None:
    model = examples.model(PADDLE, opset=13)
    done = prepared(model, verify=True)
    assert operators(done.model)[:2] == ["Conv", "GlobalAveragePool"]
    assert done.notes[-1].startswith("folded norms, biases and factors after 1 convolutions")
    assert same(model, done.model) < 1e-6


@pytest.mark.parametrize("opset", [7, 9, 11, 12])
def test_old_opsets_are_raised_and_their_gates_found(opset: int) -> None:
    model = examples.model(PADDLE, opset=13)
    model.opset_import[0].version = opset
    done = prepared(model, verify=True)
    branches = gate_branches(Dataflow(done.model))
    assert sum(name == squeeze for name, squeeze in branches.items()) == 1
    assert same(model, done.model) < 1e-6


def test_two_nodes_that_the_converter_gives_one_name_get_two() -> None:
    model = examples.model("(float[N,4,6] x) => (float[N,4,6] y) { y = Softmax<axis = 1>(x) }", opset=12)
    model.graph.node[0].name = "softmax"
    raised = convert(model, 13)
    assert not isinstance(raised, str)
    names = [node.name for node in raised.graph.node if node.name]
    assert len(raised.graph.node) > 1
    assert len(set(names)) == len(names)
    assert same(model, raised) < 1e-6


def test_a_batch_of_minus_one_is_open_and_a_question_mark_is_no_name() -> None:
    model = examples.model(PADDLE, opset=13)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_value = -1
    dims[2].dim_param = dims[3].dim_param = "?"
    done = simplified(model).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in done] == ["batch", 4, "x_2", "x_3"]
    assert numerics.feeds(model)["x"].shape == (2, 4, 64, 64)


def test_doubled_keys_of_metadata_are_merged() -> None:
    model = examples.model(PADDLE, opset=13)
    for value in ("one", "two"):
        model.metadata_props.add(key="author", value=value)
        model.graph.node[0].metadata_props.add(key="place", value=value)
    done = repaired(model)
    assert [(entry.key, entry.value) for entry in done.metadata_props] == [("author", "two")]
    assert [(entry.key, entry.value) for entry in done.graph.node[0].metadata_props] == [("place", "two")]


def test_a_file_whose_stored_shapes_are_stale_is_read(tmp_path: Path) -> None:
    model = examples.model(PADDLE, opset=13)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("u", onnx.TensorProto.FLOAT, [1, 5]))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.checker.check_model(tmp_path / "net.onnx", full_check=True)
    found = io.load(tmp_path / "net.onnx")
    assert found.graph.node == model.graph.node
    assert found.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 8
    assert not found.graph.value_info


def test_sizes_that_are_computed_in_the_graph_are_known_to_the_surgeon() -> None:
    model = examples.model(CHUNK, opset=17)
    view = OnnxSurgeon((8, 6, 6)).look(model).view
    assert view["left"].shape == view["right"].shape == (4, 6, 6)
    # Two halves of one map: a split, whose parts are groups of its channels.
    assert view["left"].inputs[0] is view["right"].inputs[0]


def test_weights_are_no_inputs_any_more_in_files_before_ir_4() -> None:
    model = examples.model(PADDLE, opset=9)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    done = simplified(model)
    assert [value.name for value in done.graph.input] == ["x"]
    assert not Dataflow(done).is_data("k")


# --- verification ----------------------------------------------------------------------------------------------------

# A difference that is scaled up: float32 cannot tell what a pass did from rounding.
AMPLIFIED = """(float[N,4,8,8] x) => (float[N,8,8,8] y)
    <float[8,4,1,1] k, float[8,1,1] b, float large = {300000.0}> {
    u = Conv(x, k) t = Add(u, b) s = Sub(t, b) d = Sub(s, u) f = Mul(d, large) y = Add(f, u) }"""


class Shifted(Pass):
    """Gives back a graph with another weight."""

    tolerance = 1e-5

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def apply(self, model: onnx.ModelProto) -> Lowered:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        (weight,) = (tensor for tensor in copy.graph.initializer if tensor.name == "k")
        array = onnx.numpy_helper.to_array(weight)
        weight.CopyFrom(onnx.numpy_helper.from_array((array * self.factor).astype(array.dtype), "k"))
        return Lowered(copy, (Edit("k", "shifted", changed=True),))


class Reordered(Pass):
    """(u + b) - b - u as (u - u) + (b - b): the same arithmetic, rounded in another way."""

    tolerance = 1e-5

    def apply(self, model: onnx.ModelProto) -> Lowered:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        by_name = {node.output[0]: node for node in copy.graph.node}
        by_name["t"].input[1], by_name["s"].input[1], by_name["d"].input[1] = "u", "u", "u"
        by_name["t"].op_type, by_name["s"].op_type = "Sub", "Add"
        return Lowered(copy, (Edit("t", "reordered", changed=True),))


def test_rounding_that_the_network_amplifies_is_no_alarm() -> None:
    model = examples.model(AMPLIFIED)
    step = Reordered()
    after = step.apply(model).model
    plain = same(model, after)
    assert plain > step.tolerance
    found = judge(step, model, after, [numerics.feeds(model)], step.tolerance)
    assert found.exact
    assert found.difference < 1e-9


def test_a_small_error_is_one_where_rounding_is_amplified_too() -> None:
    model = examples.model(AMPLIFIED)
    step = Shifted(1.001)
    found = judge(step, model, step.apply(model).model, [numerics.feeds(model)], step.tolerance)
    assert not found.difference <= step.tolerance


def test_an_error_in_front_of_a_saturated_sigmoid_is_seen() -> None:
    text = """(float[N,4,8,8] x) => (float[N,8,8,8] y) <float[8,4,1,1] k, float low = {1000.0}> {
        u = Conv(x, k) t = Sub(u, low) y = Sigmoid(t) }"""
    model = examples.model(text)
    step = Shifted(1.1)
    after = step.apply(model).model
    assert same(model, after) == 0.0
    assert judge(step, model, after, [numerics.feeds(model)], step.tolerance).difference > 1e-5


def test_images_are_smooth_and_of_variance_one() -> None:
    image = numerics.feeds(examples.model("(float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }"))["x"]
    steps = np.abs(np.diff(image, axis=3)).mean()
    assert image.shape == (2, 3, 64, 64)
    assert 0.8 < image.std() < 1.2
    assert steps < 0.3


def test_open_sizes_are_those_that_the_network_takes() -> None:
    text = """(float[N,3,H,W] x) => (float[N,4] y) <float[3072,4] w> { f = Flatten(x) y = MatMul(f, w) }"""
    assert numerics.feeds(examples.model(text))["x"].shape == (2, 3, 32, 32)


def test_float64_computes_what_onnx_runtime_does() -> None:
    text = """(float[N,4,9,8] x) => (float[N,6,3,3] y)
    <float[6,2,3,3] k, float[6] g, float[6] b, float[6] m, float[6] v = {1.0, 2.0, 0.5, 1.0, 1.5, 1.0}> {
        c = Conv<group = 2, auto_pad = "SAME_LOWER", strides = [2, 2]>(x, k)
        n = BatchNormalization(c, g, b, m, v) e = Erf(n)
        y = MaxPool<kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 1, 0]>(e) }"""
    model = examples.model(text, opset=13)
    fed = [numerics.feeds(model)]
    found = exact.outputs(exact.widened(model), fed)
    assert found["y"].dtype == np.float64
    expected = numerics.outputs_of_all(model, fed)
    assert np.abs(found["y"] - expected["y"]).max() < 1e-5


def test_what_is_proved_in_float64_is_said() -> None:
    model = examples.model(AMPLIFIED)

    class Checked(Reordered):
        def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
            return None

    (note,) = run(model, [Checked()], verify=True).notes
    assert note.endswith("its arithmetic was proved in float64")
