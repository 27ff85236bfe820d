"""Each exact pass on random blocks in float64, written so that most of them are rewritten: a pass that does nothing
keeps every function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from sesurgery.lowering import examples as _examples
from sesurgery.lowering import load
from sesurgery.lowering.base import run

EXACT = 1e-12
"""Of float64, and sums of a few hundred values of order one."""
FLOAT_ATTRIBUTES = 1e-6
"""HardSigmoid keeps alpha and beta in fp32, whatever it computes in."""
SEEDS = 60


class ConvTranspose(OpRun):
    """By torch, in float64, whole, and the border cut off: onnx's own one fails on 1x1 kernels."""

    def _run(self, x, w, b=None, dilations=None, group=None, pads=None, **_):  # type: ignore[no-untyped-def]
        tensors = [None if array is None else torch.from_numpy(np.array(array)) for array in (x, w, b)]
        whole = torch.nn.functional.conv_transpose2d(*tensors, groups=group, dilation=tuple(dilations)).numpy()
        top, left, bottom, right = pads
        return (whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right],)


def numbers(random: np.random.Generator, low: int, high: int, count: int) -> list[int]:
    return [int(number) for number in random.integers(low, high, count)]


@dataclass(frozen=True)
class Geometry:
    """A random convolution, as text, and the sizes around it."""

    ins: int
    outs: int
    groups: int
    kernel: list[int]
    size: list[int]
    out: list[int]
    options: str

    @property
    def weight(self) -> str:
        return f"{self.outs},{self.ins // self.groups},{self.kernel[0]},{self.kernel[1]}"


def geometry(random: np.random.Generator, *, pointwise: bool = False, strided: bool = True) -> Geometry:
    """Kernel, stride, dilation, uneven borders, groups (up to depthwise), and sizes of which most are odd."""
    kernel = [1, 1] if pointwise else numbers(random, 1, 4, 2)
    taps = kernel[0] * kernel[1]
    groups = int(random.choice([1, 1, 2, 4]))
    # As many channels as taps at least, and no more before than after: else hoisting does not pay.
    each = -(-max(taps, groups) // groups) + int(random.integers(0, 2))
    depthwise = bool(random.integers(0, 4) == 0)
    ins = groups * each
    groups = ins if depthwise else groups
    strides = numbers(random, 1, 3, 2) if strided and not pointwise else [1, 1]
    dilations = numbers(random, 1, 4, 2) if not pointwise else [1, 1]
    reach = [(kernel[axis] - 1) * dilations[axis] for axis in (0, 1)]
    # gate_epilogue asks for borders no wider than the reach.
    pads = [int(random.integers(0, reach[axis % 2] + 1)) for axis in range(4)]
    size = numbers(random, 9, 14, 2)
    out = [(size[axis] + pads[axis] + pads[axis + 2] - reach[axis] - 1) // strides[axis] + 1 for axis in (0, 1)]
    outs = ins * int(strides[0] * strides[1] + 1 + (reach[0] + reach[1]) // 3)
    border = f"pads={pads}"
    same = int(random.integers(0, 4))
    if not pointwise and strided and same < 2:
        border = f'auto_pad="SAME_{"UPPER" if same else "LOWER"}"'
        out = [-(-size[axis] // strides[axis]) for axis in (0, 1)]
    options = f"group={groups}, strides={strides}, dilations={dilations}, {border}"
    return Geometry(ins, outs, groups, kernel, size, out, options)


def block(shape: Geometry, squeezed: str, squeeze: str, gate: str, seed: int, bias: bool = True) -> onnx.ModelProto:
    """`gate` goes from z to `gate`; x -> convolution -> scaling, sum, ReLU."""
    width = shape.outs if squeezed == "u" else shape.ins
    text = (
        f"(double[N,{shape.ins},{shape.size[0]},{shape.size[1]}] x, double[N,{shape.outs},{shape.out[0]},"
        f"{shape.out[1]}] r) => (double[N,{shape.outs},{shape.out[0]},{shape.out[1]}] y)"
        f"<double[{shape.weight}] w, double[{shape.outs}] b, double[3,{width},1,1] w1, double[3] b1,"
        f"double[{shape.outs},3,1,1] w2, double[{shape.outs}] b2, int64[2] axes = {{2, 3}},"
        f"double[3,{width}] l1, double[{width},3] t1, double[{shape.outs},3] l2, double[3,{shape.outs}] t2,"
        f"int64[4] back = {{-1, {shape.outs}, 1, 1}}, int64[2] flat = {{-1, {width}}},"
        "double zero = {0.0}, double one = {1.0}, double three = {3.0}, double six = {6.0}, double half = {0.5},"
        "double low = {-0.5}, double minus = {-3.0},"
        f"double sixth = {{0.16666666666666666}}, double fifth = {{0.2}}> {{"
        f"u = Conv<{shape.options}>(x, w{', b' if bias else ''}) z = {squeeze.format(squeezed)} {gate}"
        "scaled = Mul(u, gate) sum = Add(scaled, r) y = Relu(sum) }"
    )
    return _examples.model(text, seed=seed)


CONVOLUTIONS = "d = Conv(z, w1, b1) a = Relu(d) e = Conv(a, w2)"
SQUEEZES = ("GlobalAveragePool({})", "ReduceMean({}, axes)")
LINEAR = (
    "f = Flatten(z) d = Gemm<transB=1>(f, l1, b1) a = Relu(d) e = Gemm<transB=1>(a, l2, b2) s = Sigmoid(e)",
    "f = Reshape(z, flat) m = MatMul(f, t1) d = Add(m, b1) a = Relu(d) e = Gemm(a, t2, b2) s = Sigmoid(e)",
    "f = Squeeze(z, axes) d = Gemm<alpha=0.5>(f, t1) a = Relu(d) m = MatMul(a, t2) e = Add(b2, m) s = Sigmoid(e)",
    "f = Flatten(z) d = Gemm<alpha=0.5, beta=2.0>(f, t1, b1) a = Tanh(d) e = MatMul(a, t2) s = Sigmoid(e)",
)
BACK = ("gate = Reshape(s, back)", "gate = Unsqueeze(s, axes)")
HARD = (
    "h = Add(e, three) c = Clip(h, zero, six) gate = Div(c, six)",
    "h = Add(three, e) c = Max(h, zero) m = Min(six, c) gate = Mul(m, sixth)",
    "m = Mul(e, fifth) h = Add(m, half) gate = Clip(h, zero, one)",
    "h = Add(e, three) c = Relu(h) m = Min(c, six) gate = Mul(sixth, m)",
    "q = Div(e, six) h = Add(half, q) m = Min(h, one) gate = Max(zero, m)",
    "h = Add(e, three) q = Mul(sixth, h) gate = Clip(q, zero, one)",
    "m = Mul(e, fifth) c = Clip(m, low, half) gate = Sub(c, low)",
    "c = Clip(e, minus, three) h = Add(three, c) gate = Div(h, six)",
)


def pick(random: np.random.Generator, forms: tuple[str, ...]) -> str:
    return forms[int(random.integers(len(forms)))]


def linear(random: np.random.Generator, seed: int) -> onnx.ModelProto:
    squeeze = pick(random, SQUEEZES)
    gate = f"{pick(random, LINEAR)} {pick(random, BACK)}"
    if "f = Flatten(z)" in gate and random.integers(2):
        squeeze, gate = "ReduceMean<keepdims=0>({}, axes)", gate.replace("f = Flatten(z)", "f = Identity(z)")
    return block(geometry(random), "u", squeeze, gate, seed)


def hard(random: np.random.Generator, seed: int) -> onnx.ModelProto:
    return block(geometry(random), "u", pick(random, SQUEEZES), f"{CONVOLUTIONS} {pick(random, HARD)}", seed)


def usual(random: np.random.Generator, seed: int, *, pointwise: bool) -> onnx.ModelProto:
    shape, bias = geometry(random, pointwise=pointwise), bool(random.integers(2))
    return block(shape, "u", pick(random, SQUEEZES), f"{CONVOLUTIONS} gate = Sigmoid(e)", seed, bias)


def known_before(random: np.random.Generator, seed: int) -> onnx.ModelProto:
    """The squeeze reads the convolution's input: nobody but the scaling reads its output."""
    shape, bias = geometry(random, strided=False), bool(random.integers(2))
    return block(shape, "x", pick(random, SQUEEZES), f"{CONVOLUTIONS} gate = Sigmoid(e)", seed, bias)


def scaled_before(random: np.random.Generator, seed: int) -> onnx.ModelProto:
    """One sample, whose gate scales the input of a convolution, as behind an activation in MobileNet."""
    shape, outs = geometry(random), int(random.integers(1, 5))
    options = shape.options.replace(f"group={shape.groups}", "group=1")
    text = (
        f"(double[1,{shape.ins},{shape.size[0]},{shape.size[1]}] x) => (double[1,{outs},P,Q] y)"
        f"<double[{outs},{shape.ins},{shape.kernel[0]},{shape.kernel[1]}] w, double[{outs}] b,"
        f"double[3,{shape.ins},1,1] w1, double[3] b1, double[{shape.ins},3,1,1] w2, int64[2] axes = {{2, 3}}> {{"
        f"u = Relu(x) z = {pick(random, SQUEEZES).format('u')} {CONVOLUTIONS} gate = Sigmoid(e) scaled = Mul(u, gate)"
        f"c = Conv<{options}>(scaled, w{', b' if random.integers(2) else ''}) y = Tanh(c) }}"
    )
    return _examples.model(text, seed=seed)


@dataclass(frozen=True)
class Case:
    """A pass, random blocks for it, and how many of the `SEEDS` it rewrites at least."""

    name: str
    make: Callable[[np.random.Generator, int], onnx.ModelProto]
    least: int = SEEDS
    bound: float = EXACT


CASES = (
    Case("linear_to_conv", linear),
    Case("hard_sigmoid", hard, bound=FLOAT_ATTRIBUTES),
    Case("squeeze_hoist", lambda random, seed: usual(random, seed, pointwise=True)),
    Case("squeeze_hoist_spatial", lambda random, seed: usual(random, seed, pointwise=False), least=SEEDS // 2),
    Case("squeeze_layout", lambda random, seed: usual(random, seed, pointwise=bool(random.integers(2)))),
    Case(
        "squeeze_pool", lambda random, seed: usual(random, seed, pointwise=bool(random.integers(2))), least=SEEDS // 4
    ),
    Case("gate_epilogue", known_before),
    Case("gate_weights", scaled_before),
)


def computed(model: onnx.ModelProto, fed: dict[str, np.ndarray]) -> np.ndarray:
    return ReferenceEvaluator(model, new_ops=[ConvTranspose]).run(None, fed)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_pass_keeps_every_function_that_it_rewrites(case: Case) -> None:
    rewritten = 0
    for seed in range(SEEDS):
        random = np.random.default_rng([seed, *map(ord, case.name)])
        model = case.make(random, seed)
        lowered = run(model, load([case.name]))
        rewritten += any(edit.changed for edit in lowered.edits)
        batch = int(random.integers(1, 4))
        shapes = [[dim.dim_value or batch for dim in value.type.tensor_type.shape.dim] for value in model.graph.input]
        fed = {value.name: random.normal(size=shape) for value, shape in zip(model.graph.input, shapes, strict=True)}
        expected = computed(model, fed)
        off = np.abs(computed(lowered.model, fed) - expected).max() / np.abs(expected).max()
        assert off <= case.bound, (seed, off, [node.op_type for node in model.graph.node], model.graph.node[0])
        again = run(lowered.model, load([case.name]))
        assert not any(edit.changed for edit in again.edits), (seed, again.edits)
        assert again.model.graph.node == lowered.model.graph.node
    assert rewritten >= case.least, rewritten


def test_every_exact_pass_has_its_random_blocks() -> None:
    from sesurgery.lowering import PASSES

    assert {case.name for case in CASES} == set(PASSES.names()) - {"constant_gates", "fold_norms"}
