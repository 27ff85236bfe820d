"""fp32 -> mixed fp16: which nodes stay fp32, that the types hold, that the function is kept."""

import functools
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sesurgery.diagnostics import SesurgeryError
from sesurgery.lowering.base import run
from sesurgery.lowering.precision.half import Precision
from sesurgery.onnxgraph.dataflow import Dataflow

# fp16 has 11 bits; values here are of order one and go through a handful of nodes.
FP16_TOLERANCE = 5e-3


def network(graph: str, *, opset: int = 20, constants: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """A model from text; the values it declares become random weights, `constants` become weights as given."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> g {graph}')
    random = np.random.default_rng(0)
    for weight in model.graph.value_info:
        shape = [dim.dim_value for dim in weight.type.tensor_type.shape.dim]
        array = random.normal(0, 0.4, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, weight.name))
    del model.graph.value_info[:]
    for name, array in (constants or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    return run(model, [Precision()]).model


def kept(model: onnx.ModelProto) -> set[str]:
    """First outputs of the nodes that compute in fp32 after the pass, Casts that it added left out."""
    known = {name for node in model.graph.node for name in node.output}
    after = lowered(model)
    flow = Dataflow(after)
    return {
        node.output[0] for node in after.graph.node if node.output[0] in known and flow.dtype(node.output[0]) == 1
    } - {output.name for output in model.graph.output if flow.producer[output.name].op_type == "Cast"}


def outputs(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


@dataclass(frozen=True)
class Gate:
    name: str
    graph: str
    kept: str
    constants: tuple[tuple[str, tuple[int, ...]], ...] = ()
    opset: int = 20


IO = "(float[N,3,6,6] x) => (float[N,4,6,6] y) "
MAP = "m = Conv<pads=[1,1,1,1]>(x, w)\n"
SE = "<float[4,3,3,3] w, float[2,4,1,1] down, float[4,2,1,1] up>"
GATES = [
    Gate(
        "mean over both axes",
        IO + SE + "{" + MAP + "s = ReduceMean(m, hw)\n d = Conv(s, down)\n r = Relu(d)\n u = Conv(r, up)\n"
        "g = Sigmoid(u)\n y = Mul(m, g) }",
        "s d r u g",
        (("hw", (-1, -2)),),
    ),
    Gate(
        "axes as an attribute, gate first in the product",
        IO + SE + "{" + MAP + "s = ReduceMean<axes=[2,3]>(m)\n d = Conv(s, down)\n u = Conv(d, up)\n"
        "g = HardSigmoid(u)\n y = Mul(g, m) }",
        "s d u g",
        opset=13,
    ),
    Gate(
        "linear projections, reshaped and expanded over the map",
        IO + "<float[4,3,3,3] w, float[4,2] down, float[2,4] up> {" + MAP + "s = GlobalAveragePool(m)\n"
        "f = Reshape(s, flat)\n d = MatMul(f, down)\n r = Relu(d)\n u = MatMul(r, up)\n g = Sigmoid(u)\n"
        "q = Reshape(g, square)\n shape = Shape(m)\n e = Expand(q, shape)\n y = Mul(m, e) }",
        "s f d r u g q",
        (("flat", (0, -1)), ("square", (0, -1, 1, 1))),
    ),
    Gate(
        "an activation that multiplies inside the branch does not end it",
        IO + SE + "{" + MAP + "s = GlobalAveragePool(m)\n d = Conv(s, down)\n h = HardSigmoid(d)\n r = Mul(d, h)\n"
        "u = Conv(r, up)\n g = Sigmoid(u)\n y = Mul(m, g) }",
        "s d h r u g",
    ),
    Gate(
        "an average and a maximum branch that meet",
        IO
        + SE
        + "{"
        + MAP
        + "s = GlobalAveragePool(m)\n t = GlobalMaxPool(m)\n d = Conv(s, down)\n e = Conv(t, down)\n"
        "u = Conv(d, up)\n v = Conv(e, up)\n a = Add(u, v)\n g = Sigmoid(a)\n y = Mul(m, g) }",
        "s t d e u v a g",
    ),
    Gate(
        "efficient channel attention: a convolution along the channels",
        IO + "<float[4,3,3,3] w, float[1,1,3] k> {" + MAP + "s = GlobalAveragePool(m)\n f = Reshape(s, row)\n"
        "c = Conv<pads=[1,1]>(f, k)\n g = Sigmoid(c)\n q = Reshape(g, square)\n y = Mul(m, q) }",
        "s f c g q",
        (("row", (0, 1, -1)), ("square", (0, -1, 1, 1))),
    ),
    Gate(
        "one block behind the other",
        IO + SE + "{" + MAP + "s = GlobalAveragePool(m)\n d = Conv(s, down)\n u = Conv(d, up)\n g = Sigmoid(u)\n"
        "n = Mul(m, g)\n t = GlobalAveragePool(n)\n e = Conv(t, down)\n v = Conv(e, up)\n h = Sigmoid(v)\n"
        "y = Mul(n, h) }",
        "s d u g t e v h",
    ),
    Gate(
        "a map that is one pixel already",
        "(float[N,4,1,1] x) => (float[N,4,1,1] y) <float[2,4,1,1] down, float[4,2,1,1] up> {m = Relu(x)\n"
        "s = GlobalAveragePool(m)\n d = Conv(s, down)\n u = Conv(d, up)\n g = Sigmoid(u)\n y = Mul(m, g) }",
        "s d u g",
    ),
    Gate(
        "a pool with a kernel as large as the map",
        IO + SE + "{" + MAP + "s = AveragePool<kernel_shape=[6,6]>(m)\n d = Conv(s, down)\n u = Conv(d, up)\n"
        "g = Sigmoid(u)\n y = Mul(m, g) }",
        "s d u g",
    ),
    Gate(
        "local pools and pools that scale nothing are not gates",
        "(float[N,4,6,6] x) => (float[N,2] y) <float[4,2] w> {a = AveragePool<kernel_shape=[2,2]>(x)\n"
        "s = GlobalAveragePool(a)\n f = Flatten(s)\n h = MatMul(f, w)\n y = Mul(h, half) }",
        "s",
        (("half", ()),),
    ),
]


def gate_network(gate: Gate) -> onnx.ModelProto:
    constants = {
        name: np.array(0.5, np.float32) if name == "half" else np.array(values, np.int64)
        for name, values in gate.constants
    }
    return network(gate.graph, opset=gate.opset, constants=constants)


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)
def test_exactly_the_gate_stays_in_fp32(gate: Gate) -> None:
    assert kept(gate_network(gate)) == set(gate.kept.split())


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)
def test_the_lowered_network_runs_and_keeps_the_function(gate: Gate) -> None:
    model = gate_network(gate)
    shape = [2, *(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:])]
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    (expected,), (found,) = outputs(model, x=x), outputs(lowered(model), x=x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=FP16_TOLERANCE)


@pytest.mark.parametrize("gate", GATES[:7], ids=lambda gate: gate.name)
def test_no_value_inside_a_gate_passes_through_fp16(gate: Gate) -> None:
    after = lowered(gate_network(gate))
    inside = set(gate.kept.split())
    made_by = {node.output[0]: node for node in after.graph.node}
    for node in after.graph.node:
        if node.output[0] in inside - {"s", "t"}:
            for name in node.input:
                assert name not in made_by or made_by[name].op_type != "Cast", f"{node.output[0]} reads a Cast"


def test_a_network_is_read_with_one_cast_and_written_with_one() -> None:
    after = lowered(network("(float[N,4] x) => (float[N,4] y) { a = Relu(x)\n b = Tanh(x)\n y = Add(a, b) }"))
    assert [(node.op_type, *node.input, *node.output) for node in after.graph.node] == [
        ("Cast", "x", "x_fp16"),
        ("Relu", "x_fp16", "a"),
        ("Tanh", "x_fp16", "b"),
        ("Add", "a", "b", "y_fp16"),
        ("Cast", "y_fp16", "y"),
    ]


def test_a_weight_read_in_both_types_is_there_twice() -> None:
    model = network(
        "(float[N,4,2,2] x) => (float[N,4,2,2] y) <float[1,4,1,1] w> "
        "{ s = GlobalAveragePool(x)\n g = Add(s, w)\n m = Add(x, w)\n y = Mul(m, g) }"
    )
    types = {tensor.name: tensor.data_type for tensor in lowered(model).graph.initializer}
    assert types == {"w": TensorProto.FLOAT, "w_fp16": TensorProto.FLOAT16}


def test_a_weight_read_in_fp16_only_keeps_its_name() -> None:
    after = lowered(network("(float[N,4] x) => (float[N,2] y) <float[4,2] w> { y = MatMul(x, w) }"))
    assert [(tensor.name, tensor.data_type) for tensor in after.graph.initializer] == [("w", TensorProto.FLOAT16)]


def test_an_output_that_a_kept_node_makes_stays_float32() -> None:
    after = lowered(network("(float[N,4] x) => (float[N,4] y) { a = Relu(x)\n y = Softmax(a) }"))
    assert after.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_an_output_that_another_node_reads_keeps_its_type_and_its_reader_reads_fp16() -> None:
    after = lowered(network("(float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Relu(x)\n z = Tanh(y) }"))
    assert [list(node.input) for node in after.graph.node if node.op_type == "Tanh"] == [["y_fp16"]]
    assert [output.type.tensor_type.elem_type for output in after.graph.output] == [TensorProto.FLOAT] * 2


def test_a_cast_to_float_that_is_there_already_stays_what_it_is() -> None:
    model = network("(float[N,4] x) => (float[N,4] y) { s = Size(x)\n f = Cast<to=1>(s)\n y = Div(x, f) }")
    assert kept(model) == {"f"}
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(outputs(lowered(model), x=x)[0], x / 8, atol=FP16_TOLERANCE)


def test_constants_in_nodes_become_weights_of_the_type_their_reader_wants() -> None:
    model = network("(float[N,4] x) => (float[N,4] y) { c = Constant<value = float {0.5}>()\n y = Mul(x, c) }")
    after = lowered(model)
    assert [(tensor.name, tensor.data_type) for tensor in after.graph.initializer] == [("c", TensorProto.FLOAT16)]


def test_what_onnx_defines_for_float32_alone_is_fed_float32() -> None:
    model = network(
        "(float[N,1,2,2] x) => (float[N,1,4,4] y) { a = Relu(x)\n y = Resize(a, , scales) }",
        constants={"scales": np.array([1, 1, 2, 2], np.float32)},
    )
    after = lowered(model)
    assert {tensor.name: tensor.data_type for tensor in after.graph.initializer} == {"scales": TensorProto.FLOAT}
    assert outputs(after, x=np.ones((1, 1, 2, 2), np.float32))[0].shape == (1, 1, 4, 4)


def test_infinities_that_are_meant_do_not_count_as_overflow() -> None:
    mask = np.array([0, -np.inf], np.float32)
    model = network("(float[N,2] x) => (float[N,2] y) { a = Add(x, mask)\n y = Relu(a) }", constants={"mask": mask})
    assert kept(model) == set()


def test_nodes_without_a_name_get_one_each_and_the_model_given_stays_as_it_was() -> None:
    model = network("(float[N,4] x) => (float[N,4] y) { a = Relu(x)\n b = Relu(a)\n y = Relu(b) }")
    model.graph.node[1].name = model.graph.node[2].name = "twin"
    before = model.SerializeToString()
    names = [node.name for node in lowered(model).graph.node]
    assert len(set(names)) == len(names)
    assert all(names)
    assert model.SerializeToString() == before


def test_metadata_of_nodes_survives() -> None:
    model = network("(float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    entry = model.graph.node[0].metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", "['', 'act', 'relu']"
    (relu,) = [node for node in lowered(model).graph.node if node.op_type == "Relu"]
    assert [item.value for item in relu.metadata_props] == ["['', 'act', 'relu']"]


def test_edits_name_every_float_node_once_and_no_other() -> None:
    model = gate_network(GATES[2])
    edits = run(model, [Precision()]).edits
    assert sum(edit.changed for edit in edits) == 3  # Conv, Expand, Mul
    assert sum(not edit.changed for edit in edits) == 7
    assert all(edit.why for edit in edits)


def in_half() -> onnx.ModelProto:
    constants = {"w": np.ones(4, np.float16)}
    return network("(float16[N,4] x) => (float16[N,4] y) { y = Add(x, w) }", constants=constants)


def with_branch() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["inner"])],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, ["N", 4])],
    )
    model = network("(bool c, float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body))
    return model


def with_weights_outside() -> onnx.ModelProto:
    model = network("(float[N,4] x) => (float[N,4] y) <float[4] w> { y = Add(x, w) }")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    return model


RELU = "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
REFUSALS = {
    "the opset is 12": functools.partial(network, RELU, opset=12),
    "'w' is float16 already": in_half,
    "control flow": with_branch,
    "load the external data first": with_weights_outside,
    "quantized already": functools.partial(
        network,
        "(float[N,4] x) => (float[N,4] y) { q = QuantizeLinear(x, s)\n y = DequantizeLinear(q, s) }",
        constants={"s": np.array(0.1, np.float32)},
    ),
    "nothing in it computes in float32": functools.partial(network, "(int64[N] x) => (int64[N] y) { y = Abs(x) }"),
    "its types do not work out": functools.partial(
        network, "(float[N,4] x, int64[N,4] i) => (float[N,4] y) { y = Add(x, i) }"
    ),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_the_pass_says_why_it_cannot_start(reason: str) -> None:
    with pytest.raises(SesurgeryError, match=f"SE602.*precision cannot start: .*{reason}"):
        run(REFUSALS[reason](), [Precision()])


def test_a_convolution_left_in_fp32_breaks_the_promise() -> None:
    model = gate_network(GATES[0])
    assert Precision().ensures(model, model) == "convolution '' does not compute in fp16"


def test_a_changed_output_type_breaks_the_promise() -> None:
    model = network(RELU)
    after = lowered(model)
    after.graph.node.pop()
    after.graph.node[1].output[0] = "y"
    after.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    assert Precision().ensures(model, after) == "input or output 'y' has another name or type"


def test_an_overflown_weight_breaks_the_promise() -> None:
    model = network("(float[N,4] x) => (float[N,4] y) <float[4] w> { y = Add(x, w) }")
    after = lowered(model)
    after.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full(4, np.inf, np.float16), "w"))
    assert Precision().ensures(model, after) == "weight 'w' overflowed"
