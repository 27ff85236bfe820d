"""The passes that make SE cheap keep the function, in float64, whatever the convolution looks like; and say why not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from sesurgery.diagnostics import SesurgeryError
from sesurgery.lowering import PASSES, in_order, load
from sesurgery.lowering import examples as _examples
from sesurgery.lowering.base import Edit, Lowered, Pass, run
from sesurgery.lowering.passes.constant_gates import ConstantGates
from sesurgery.lowering.passes.gate_epilogue import GateEpilogue
from sesurgery.lowering.passes.hard_sigmoid import HardSigmoid
from sesurgery.lowering.passes.linear_to_conv import LinearToConv
from sesurgery.lowering.passes.squeeze_hoist import SqueezeHoist
from sesurgery.lowering.passes.squeeze_hoist_spatial import SqueezeHoistSpatial
from sesurgery.lowering.passes.squeeze_layout import SqueezeLayout
from sesurgery.lowering.passes.squeeze_pool import SqueezePool
from sesurgery.lowering.precision.half import Precision
from sesurgery.lowering.precision.int8 import Quantize
from sesurgery.onnxgraph import numerics as _numerics
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.gates import gate_branches

FREE_SE = (
    *("linear_to_conv", "squeeze_hoist", "squeeze_hoist_spatial", "squeeze_layout", "gate_epilogue"),
    "gate_weights",
)
# float64, sums of a few hundred values of order one.
EXACT = 1e-12


GATES = {
    "sigmoid": "gate = Sigmoid(e)",
    "relu6(x + 3) / 6": "h = Add(e, three) c = Clip(h, zero, six) gate = Div(c, six)",
    "Keras": "h = Add(three, e) c = Max(h, zero) m = Min(six, c) gate = Mul(m, sixth)",
    "a fifth": "m = Mul(e, fifth) h = Add(m, half) gate = Clip(h, zero, one)",
}
NUMBERS = (
    "double zero = {0.0}, double one = {1.0}, double three = {3.0}, double six = {6.0}, double half = {0.5},"
    " double sixth = {0.16666666666666666}, double fifth = {0.2}"
)


def block(random: np.random.Generator, pointwise: bool, dtype: str = "double") -> tuple[onnx.ModelProto, str]:
    """A random convolution with SE behind it and a shortcut, all in `dtype`, and what the convolution is."""
    groups = int(random.choice([1, 1, 2, 4]))
    ins, outs = groups * int(random.integers(1, 4)), groups * int(random.integers(6, 9))
    kernel = [1, 1] if pointwise else random.integers(1, 4, 2).tolist()
    strides = [1, 1] if pointwise else random.integers(1, 3, 2).tolist()
    dilations = [1, 1] if pointwise else random.integers(1, 3, 2).tolist()
    pads = [0] * 4 if pointwise else random.integers(0, 3, 4).tolist()
    size = random.integers(7, 12, 2).tolist()
    out = [
        (size[axis] + pads[axis] + pads[axis + 2] - (kernel[axis] - 1) * dilations[axis] - 1) // strides[axis] + 1
        for axis in (0, 1)
    ]
    what = f"group={groups}, strides={strides}, pads={pads}, dilations={dilations}"
    squeeze = str(random.choice(["GlobalAveragePool(u)", "ReduceMean(u, axes)"]))
    gate = GATES[str(random.choice(list(GATES)))]
    text = (
        f"(double[N,{ins},{size[0]},{size[1]}] x, double[N,{outs},{out[0]},{out[1]}] r)"
        f" => (double[N,{outs},{out[0]},{out[1]}] y)"
        f"<double[{outs},{ins // groups},{kernel[0]},{kernel[1]}] w, double[{outs}] b, double[3,{outs},1,1] w1,"
        f" double[3] b1, double[{outs},3,1,1] w2, int64[2] axes = {{2, 3}}, {NUMBERS}> {{"
        f"u = Conv<{what}>(x, w, b) z = {squeeze} d = Conv(z, w1, b1) a = Relu(d) e = Conv(a, w2)"
        f"{gate} scaled = Mul(u, gate) sum = Add(scaled, r) y = Relu(sum) }}"
    )
    text = text.replace("double", dtype)
    return _examples.model(text, seed=int(random.integers(1000))), f"{ins}->{outs} {kernel} of {size}: {what}"


class ConvTranspose(OpRun):
    """By torch, in float64, without a border, and the border cut off: onnx's own one fails on 1x1 kernels."""

    def _run(self, x, w, b=None, dilations=None, group=None, pads=None, **_):
        whole = torch.nn.functional.conv_transpose2d(
            torch.from_numpy(x),
            torch.from_numpy(w.copy()),
            torch.from_numpy(b.copy()),
            groups=group,
            dilation=tuple(dilations),
        ).numpy()
        top, left, bottom, right = pads
        return (whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right],)


def exact(model: onnx.ModelProto, fed: dict) -> np.ndarray:
    return ReferenceEvaluator(model, new_ops=[ConvTranspose]).run(None, fed)[0]


@pytest.mark.parametrize("seed", range(40))
def test_all_passes_together_keep_the_function_to_the_last_bits(seed: int) -> None:
    random = np.random.default_rng(seed)
    model, what = block(random, pointwise=seed % 4 == 0)
    lowered = run(model, load(FREE_SE))
    fed = _numerics.feeds(model, seed)
    expected = exact(model, fed)
    assert np.abs(exact(lowered.model, fed) - expected).max() <= EXACT * np.abs(expected).max(), what
    again = run(lowered.model, load(FREE_SE))
    assert not any(edit.changed for edit in again.edits), again.edits


@pytest.mark.parametrize("name", [*FREE_SE, "hard_sigmoid", "squeeze_pool"])
@pytest.mark.parametrize("seed", range(12))
def test_every_pass_alone_keeps_the_function_to_the_last_bits(name: str, seed: int) -> None:
    model, what = block(np.random.default_rng(100 + seed), pointwise=seed % 3 == 0)
    lowered = run(model, load([name]))
    fed = _numerics.feeds(model, seed)
    expected = exact(model, fed)
    # The attributes of HardSigmoid are fp32 whatever it computes in.
    bound = 1e-6 if name == "hard_sigmoid" else EXACT
    assert np.abs(exact(lowered.model, fed) - expected).max() <= bound * np.abs(expected).max(), what
    assert not any(edit.changed for edit in run(lowered.model, load([name])).edits)


@pytest.mark.parametrize("seed", range(12))
def test_a_folded_gate_moves_no_output_further_than_its_bound_allows(seed: int) -> None:
    model, what = block(np.random.default_rng(200 + seed), pointwise=seed % 3 == 0, dtype="float")
    samples = [
        {name: value * np.float32(0.05) for name, value in _numerics.feeds(model, at).items()} for at in range(3)
    ]
    lowered = run(model, [ConstantGates(0.3, samples)])
    (edit,) = lowered.edits
    assert edit.changed, (what, edit)
    assert not {"GlobalAveragePool", "ReduceMean"} & {node.op_type for node in lowered.model.graph.node}
    off = float(edit.why.removeprefix("constant within ").split()[0])
    inside = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model)).extract_model(["x"], ["u"])
    for fed in samples:
        largest = np.abs(exact(inside, {"x": fed["x"]})).max()
        assert np.abs(exact(lowered.model, fed) - exact(model, fed)).max() <= 1.1 * off * largest + 1e-5, what


@pytest.mark.parametrize("seed", range(40))
def test_a_squeeze_is_hoisted_or_the_reason_said(seed: int) -> None:
    model, what = block(np.random.default_rng(seed), pointwise=seed % 4 == 0)
    edits = run(model, load(["squeeze_hoist", "squeeze_hoist_spatial"])).edits
    hoisted = [edit for edit in edits if edit.changed]
    assert len(hoisted) <= 1
    if not hoisted:
        words = ("larger than its output", "the constant would be larger than the map")
        assert any(word in edit.why for edit in edits for word in words), (what, edits)


def test_a_chain_of_1x1_convolutions_is_hoisted_to_its_start_and_said_once_for_each() -> None:
    text = """(float[N,4,6,6] x) => (float[N,8,6,6] y)
    <float[6,4,1,1] v, float[8,6,1,1] w, float[3,8,1,1] w1, float[8,3,1,1] w2> {
        t = Conv(x, v) u = Conv(t, w) z = GlobalAveragePool(u) d = Conv(z, w1) e = Conv(d, w2) gate = Sigmoid(e)
        y = Mul(u, gate) }"""
    lowered = run(_examples.model(text), [SqueezeHoist()], verify=True)
    # t is read by the next convolution, which needs it anyway: the mean is only moved over what the gate alone scales.
    assert [edit.changed for edit in lowered.edits] == [True]
    (pool,) = [node for node in lowered.model.graph.node if node.op_type == "GlobalAveragePool"]
    assert pool.input[0] == "t"


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
def test_reduce_mean_is_written_in_the_form_of_its_opset(opset: int) -> None:
    text = """(float[N,8,6,6] x) => (float[N,8,6,6] y) <float[3,8,1,1] w1, float[8,3,1,1] w2> {
        z = GlobalAveragePool(x) d = Conv(z, w1) e = Conv(d, w2) gate = Sigmoid(e) y = Mul(x, gate) }"""
    lowered = run(_examples.model(text, opset=opset), [SqueezeLayout()], verify=True)
    (mean,) = [node for node in lowered.model.graph.node if node.op_type == "ReduceMean"]
    assert len(mean.input) == (1 if opset < 18 else 2)


def test_an_fp16_map_is_averaged_in_fp32() -> None:
    text = """(float16[N,8,6,6] x) => (float16[N,8,6,6] y) <float16[8,8,1,1] w> {
        z = GlobalAveragePool(x) d = Conv(z, w) gate = Sigmoid(d) y = Mul(x, gate) }"""
    lowered = SqueezeLayout().apply(_examples.model(text))
    assert [node.op_type for node in lowered.model.graph.node][:5] == [
        *("Cast", "Transpose", "ReduceMean", "Cast", "Transpose"),
    ]


def test_the_gate_stays_fp32_after_all_passes_and_nothing_overflows() -> None:
    text = """(float[N,16,112,112] x, float[N,16,112,112] r) => (float[N,16,112,112] y)
    <float[16,16,3,3] w, float[4,16,1,1] w1, float[16,4,1,1] w2> {
        h = Abs(x) u = Conv<pads=[1,1,1,1]>(h, w) z = GlobalAveragePool(u) d = Conv(z, w1) a = Relu(d) e = Conv(a, w2)
        gate = Sigmoid(e) s = Mul(u, gate) y = Add(s, r) }"""
    model = _examples.model(text)
    lowered = run(model, (*load(FREE_SE), Precision())).model
    flow = Dataflow(lowered)
    kinds = {name: flow.dtype(name) for name in ("d", "a", "e", "gate")}
    assert set(kinds.values()) == {onnx.TensorProto.FLOAT}
    fed = {"x": np.full((1, 16, 112, 112), 100, np.float32), "r": np.zeros((1, 16, 112, 112), np.float32)}
    found, expected = _numerics.outputs(lowered, fed), _numerics.outputs(model, fed)
    # The sum over the map would be 1.25 million.
    assert _numerics.difference(expected, found) < 5e-3


def test_equal_weights_behind_an_identity_are_weights() -> None:
    text = """(float[N,4,6,6] x) => (float[N,8,6,6] y) <float[8,4,1,1] w, float[3,8,1,1] w1, float[8,3,1,1] w2> {
        t = Relu(x) same = Identity(w) u = Conv(t, same) z = GlobalAveragePool(u) d = Conv(z, w1) e = Conv(d, w2)
        gate = Sigmoid(e) y = Mul(u, gate) }"""
    assert any(edit.changed for edit in run(_examples.model(text), [SqueezeHoist()], verify=True).edits)


@pytest.mark.parametrize(
    "step",
    [
        *(LinearToConv(), HardSigmoid(), SqueezeHoist(), SqueezeHoistSpatial(), SqueezeLayout(), SqueezePool()),
        *(GateEpilogue(), ConstantGates(samples=[{"x": np.zeros((1, 3, 8, 8), np.float32)}])),
    ],
)
def test_a_model_without_gates_comes_back_as_it_was(step: Pass) -> None:
    model = _examples.model(
        "(float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,1,1] w> { c = Conv(x, w) y = Relu(c) }"
    )
    lowered = run(model, [step])
    assert lowered.edits == ()
    assert [(n.op_type, n.input, n.output) for n in lowered.model.graph.node] == [
        (n.op_type, n.input, n.output) for n in model.graph.node
    ]


def test_passes_run_in_the_order_that_they_ask_for() -> None:
    assert in_order(reversed(FREE_SE)) == FREE_SE
    assert in_order([]) == ()
    with pytest.raises(SesurgeryError, match=r"SE105.*squeeze_hoits"):
        in_order(["squeeze_hoits"])


@pytest.mark.parametrize(
    "step", [*map(PASSES.load, PASSES.names()), Precision, Quantize], ids=lambda step: step.__name__
)
def test_every_pass_names_its_tolerance_and_passes_that_there_are(step: type[Pass]) -> None:
    # 8 bits are held to the samples they were calibrated on, and more loosely.
    assert 0 < step.tolerance < (0.5 if step is Quantize else 0.1)
    assert set(step.after) <= set(PASSES.names())


class Forgets(Pass):
    """A pass that breaks its promise: it takes a node's effect away."""

    tolerance = 1e-5

    def apply(self, model: onnx.ModelProto) -> Lowered:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        copy.graph.node[-1].op_type = "Identity"
        return Lowered(copy, (Edit("relu", "gone", changed=True),))


def test_a_pass_that_changes_the_function_is_caught() -> None:
    model = _examples.model("(float[N,4] x) => (float[N,4] y) { t = Neg(x) y = Relu(t) }")
    run(model, [Forgets()])
    with pytest.raises(SesurgeryError, match=r"SE607.*forgets: it changed an output by"):
        run(model, [Forgets()], verify=True)


def test_a_convolution_that_ends_at_one_position_is_no_squeeze() -> None:
    text = """(float[N,4,2,2] x) => (float[N,8,1,1] y)
    <float[8,4,3,3] v, float[8,8,3,3] w, float[3,8,1,1] w1, float[8,3,1,1] w2> {
        t = Conv<strides=[2,2], pads=[1,1,1,1]>(x, v) u = Conv<pads=[1,1,1,1]>(t, w) z = GlobalAveragePool(u)
        d = Conv(z, w1) e = Conv(d, w2) gate = Sigmoid(e) y = Mul(u, gate) }"""
    assert set(gate_branches(Dataflow(_examples.model(text)))) == {"z", "d", "e", "gate"}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # An even number of positions is a matrix product, an odd one a mean: see the pass.
        ((8, 7), ("Transpose", "Reshape", "MatMul", "Reshape", "Mul", "ReduceSum", "Add", "Reshape")),
        ((7, 7), ("Transpose", "Reshape", "Mul", "ReduceMean", "Reshape", "Conv")),
    ],
)
def test_the_sums_of_taps_are_written_for_the_number_of_positions(size: tuple[int, int], expected: tuple) -> None:
    high, wide = size
    text = f"""(float[N,16,{high},{wide}] x) => (float[N,16,{high},{wide}] y)
    <float[16,16,3,3] w, float[4,16,1,1] w1, float[16,4,1,1] w2> {{
        u = Conv<pads=[1,1,1,1]>(x, w) z = GlobalAveragePool(u) d = Conv(z, w1) a = Relu(d) e = Conv(a, w2)
        gate = Sigmoid(e) y = Mul(u, gate) }}"""
    lowered = run(_examples.model(text), [SqueezeHoistSpatial()], verify=True).model
    kinds = [node.op_type for node in lowered.graph.node]
    assert tuple(kinds[1 : kinds.index("Relu")]) == expected
    flow = Dataflow(run(lowered, [Precision()]).model)
    gate = {name for name in gate_branches(flow) if flow.producer[name].op_type != "Cast"}
    assert {"d", "a", "e", "gate"} < gate
    assert {flow.dtype(name) for name in gate} == {onnx.TensorProto.FLOAT}
    # The map is read as it lies, in fp16.
    assert flow.dtype(flow.producer["x_taps_nhwc"].input[0]) == onnx.TensorProto.FLOAT16


@pytest.mark.parametrize("high", [112, 111])
def test_taps_of_large_values_overflow_nowhere_in_fp16(high: int) -> None:
    text = f"""(float[N,16,{high},111] x) => (float[N,16,{high},111] y)
    <float[16,16,3,3] w, float[4,16,1,1] w1, float[16,4,1,1] w2> {{
        h = Abs(x) u = Conv<pads=[1,1,1,1]>(h, w) z = GlobalAveragePool(u) d = Conv(z, w1) a = Relu(d) e = Conv(a, w2)
        gate = Sigmoid(e) y = Mul(u, gate) }}"""
    model = _examples.model(text)
    lowered = run(model, [SqueezeHoistSpatial(), Precision()])
    assert lowered.edits[0].changed
    fed = {"x": np.full((1, 16, high, 111), 100, np.float32)}
    found, expected = _numerics.outputs(lowered.model, fed), _numerics.outputs(model, fed)
    # The sum over the map would be 1.2 million.
    assert _numerics.difference(expected, found) < 5e-3


def test_scaled_weights_are_computed_in_fp32_and_rounded_once() -> None:
    text = """(float[1,8,12,12] x) => (float[1,4,12,12] y)
    <float[4,8,1,1] w, float[3,8,1,1] w1, float[8,3,1,1] w2> {
        u = HardSwish(x) z = GlobalAveragePool(u) d = Conv(z, w1) a = Relu(d) e = Conv(a, w2) gate = Sigmoid(e)
        scaled = Mul(u, gate) c = Conv(scaled, w) y = Relu(c) }"""
    model = _examples.model(text)
    scaled = run(model, load(FREE_SE), verify=True).model
    lowered = run(scaled, [Precision()])
    flow = Dataflow(lowered.model)
    assert {"d", "a", "e", "gate", "w_scaled"} <= set(gate_branches(flow))
    assert {flow.dtype(name) for name in ("d", "a", "e", "gate", "w_scaled", "w")} == {onnx.TensorProto.FLOAT}
    assert [edit.changed for edit in lowered.edits if edit.where.endswith("_Mul")] == [False]
    (over,) = [node for node in flow.nodes if node.op_type == "Conv" and node.input[0] == "u"]
    assert flow.dtype(over.input[1]) == flow.dtype(over.input[0]) == onnx.TensorProto.FLOAT16


def test_weights_that_no_constant_makes_are_no_gate() -> None:
    text = """(float[1,4,6,6] x) => (float[1,4,6,6] y) <float[16,4,1,1] w, int64[4] shape = {4, 4, 1, 1}> {
        z = GlobalAveragePool(x) d = Conv(z, w) kernel = Reshape(d, shape) y = Conv(x, kernel) }"""
    assert gate_branches(Dataflow(_examples.model(text))) == {}
