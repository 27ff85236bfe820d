"""bf16, ranges that data show, and inputs and outputs that are converted too."""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from sesurgery.lowering import examples as _examples
from sesurgery.lowering.base import run
from sesurgery.lowering.precision.half import SAFE, Precision
from sesurgery.lowering.precision.ranges import FIRST, measure
from sesurgery.onnxgraph.dataflow import Dataflow

SE = """(float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,3,3] w, float[2,4,1,1] down, float[4,2,1,1] up> {
    m = Conv<pads=[1,1,1,1]>(x, w) s = GlobalAveragePool(m) d = Conv(s, down) r = Relu(d) u = Conv(r, up)
    g = Sigmoid(u) y = Mul(m, g) }"""
CHAIN = """(float[N,3,8,8] x) => (float[N,2,8,8] y) <float[4,3,3,3] w, float[4,4,1,1] v, float[2,4,1,1] last> {
    a = Conv<pads=[1,1,1,1]>(x, w) b = Relu(a) c = Conv(b, v) d = Relu(c) y = Conv(d, last) }"""


def overflowing() -> onnx.ModelProto:
    """The first convolution's weights times 60000 (they stay within fp16), the second's divided by that."""
    model = _examples.model(CHAIN)
    for tensor in model.graph.initializer:
        scale = {"w": 6e4, "v": 1 / 6e4}.get(tensor.name, 1)
        array = (numpy_helper.to_array(tensor) * scale * 0.5).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def samples(count: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(1)
    return [{"x": random.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def answer(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    # ONNX's own evaluator: ONNX Runtime takes Casts away, and with them the overflow that a GPU would show.
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(model).run(None, feeds)[0]


def test_a_value_that_overflows_in_the_middle_is_kept_where_data_show_it() -> None:
    model, feeds = overflowing(), samples(5)
    reaches = measure(model, feeds, SAFE)
    lowered = run(model, [Precision(reaches=reaches)])
    kept = {edit.where: edit.why for edit in lowered.edits if not edit.changed}
    assert list(kept) == ["Conv_0", "Relu_1", "Conv_2"]
    assert kept["Conv_0"].startswith("its output 'a' reaches ")
    assert kept["Conv_0"].endswith("too large on 5 of 5 samples")
    assert kept["Conv_2"].startswith("its input 'b' reaches ")
    expected, found = answer(model, feeds[0]), answer(lowered.model, feeds[0])
    assert np.abs(found - expected).max() < 5e-3 * np.abs(expected).max()


def test_without_data_the_same_network_gives_no_numbers() -> None:
    found = answer(run(overflowing(), [Precision()]).model, samples(1)[0])
    assert not np.isfinite(found).all()


def test_reach_counts_the_samples_beyond_the_limit() -> None:
    feeds = [{"x": np.full((1, 3, 8, 8), size, np.float32)} for size in (1, -3, 2)]
    reach = measure(_examples.model(SE), feeds, 2.5)["x"]
    assert (reach.largest, reach.beyond, reach.runs) == (3.0, 1, 3)


def test_bf16_converts_the_opset_and_keeps_the_gate_and_where_nodes_came_from() -> None:
    model = _examples.model(SE)
    entry = model.graph.node[0].metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", "['', 'stem', 'conv']"
    lowered = run(model, [Precision("bf16")]).model
    flow = Dataflow(lowered)
    types = {name: flow.dtype(name) for name in ("m", "s", "d", "r", "u", "g")}
    assert lowered.opset_import[0].version == 22
    assert types.pop("m") == TensorProto.BFLOAT16
    assert set(types.values()) == {TensorProto.FLOAT}
    assert {t.name: t.data_type for t in lowered.graph.initializer}["w"] == TensorProto.BFLOAT16
    (conv,) = [node for node in lowered.graph.node if node.output[0] == "m"]
    assert [item.value for item in conv.metadata_props] == ["['', 'stem', 'conv']"]


def test_bf16_needs_no_range_check() -> None:
    reaches = measure(overflowing(), samples(1), SAFE)
    assert all(edit.changed for edit in run(overflowing(), [Precision("bf16", reaches=reaches)]).edits)


def test_inputs_and_outputs_are_converted_where_it_is_asked_for() -> None:
    lowered = run(_examples.model(SE), [Precision(io="convert")]).model
    ends = [value.type.tensor_type.elem_type for value in (*lowered.graph.input, *lowered.graph.output)]
    assert ends == [TensorProto.FLOAT16] * 2
    x = samples(1)[0]["x"]
    expected = answer(_examples.model(SE), {"x": x})
    found = answer(lowered, {"x": x.astype(np.float16)})
    assert found.dtype == np.float16
    assert np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()


def test_an_output_that_a_kept_node_makes_is_not_converted() -> None:
    model = _examples.model("(float[N,4] x) => (float[N,4] y) { a = Relu(x) y = Softmax(a) }")
    lowered = run(model, [Precision(io="convert")]).model
    ends = [value.type.tensor_type.elem_type for value in (*lowered.graph.input, *lowered.graph.output)]
    assert ends == [TensorProto.FLOAT16, TensorProto.FLOAT]


def test_a_value_too_large_on_one_sample_of_many_is_found_wherever_that_sample_stands() -> None:
    feeds = [{"x": 1e-3 * each["x"]} for each in samples(60)]
    feeds[41] = {"x": samples(1)[0]["x"]}
    reach = measure(overflowing(), feeds, SAFE)["a"]
    assert reach.largest > SAFE
    assert reach.beyond == 1


def test_a_value_near_the_limit_is_looked_at_on_every_sample_and_a_small_one_on_the_largest() -> None:
    # Every input is as large as the others, so that only what the network makes of it can tell them apart.
    feeds = [{"x": np.sign(each["x"])} for each in samples(60)]
    reaches = measure(overflowing(), feeds, SAFE)
    assert reaches["a"].runs == 60
    assert reaches["x"].runs == FIRST
    largest = [float(np.abs(ReferenceEvaluator(overflowing()).run(["a"], each)[0]).max()) for each in feeds]
    assert abs(reaches["a"].largest / max(largest) - 1) < 1e-5
    assert reaches["a"].beyond == sum(value > SAFE for value in largest)
