"""Integer kernels beside float, a layer at a time: what is compared, what rounding explains, who is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from sesurgery.backends.base import Runner
from sesurgery.backends.onnxruntime import OnnxRuntime
from sesurgery.lowering import examples as _examples
from sesurgery.lowering.base import run
from sesurgery.lowering.precision.int8 import Quantize, ranges_of
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.verification.integer_kernels import IntegerReport, compare_kernels

GRAPH = """(float[N,8,8,8] x) => (float[N,4] y)
<float[16,8,3,3] w, float[16] b, float[16,16,1,1] w2, float[4,16] fc>
{
    map = Conv<pads=[1,1,1,1]>(x, w, b)
    on = Relu(map)
    more = Conv(on, w2)
    pooled = GlobalMaxPool(more)
    flat = Flatten(pooled)
    y = Gemm<transB=1>(flat, fc)
}"""
LAYERS = ["Conv_0", "Conv_2", "Gemm_5"]
SAMPLES = [{"x": np.random.default_rng(seed).normal(size=(1, 8, 8, 8)).astype(np.float32)} for seed in range(3)]


def model(weights: int = 7, activations: str = "uint8") -> onnx.ModelProto:
    given = _examples.model(GRAPH)
    return run(given, [Quantize(ranges_of(given, SAMPLES, "minmax"), activations, weights)]).model


@dataclass(frozen=True)
class Wrong(OnnxRuntime):
    """ONNX Runtime, some of whose outputs are changed."""

    change: Callable[[dict[str, np.ndarray]], None] = lambda found: None

    def load(self, engine: Path, threads: int | None = None) -> Runner:
        runner = super().load(engine, threads)
        right = runner.infer

        def wrong(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            found = {name: array.copy() for name, array in right(feeds).items()}
            self.change(found)
            return found

        runner.infer = wrong
        return runner


def compared(change: Callable[[dict[str, np.ndarray]], None]) -> IntegerReport:
    return compare_kernels(Wrong(change=change), model(), SAMPLES)


LARGE = """(float[N,2,4,4] x) => (float[N,2,4,4] y)
<float s = {1}, uint8 z = {0}, float[2] ws = {1, 0.001}, int8[2] wz = {0, 0}, float out = {0.05}, uint8 oz = {0},
 int8[2,2,1,1] w = {1, 0, 0, 1}, float[2] b = {0.45, 0}>
{
    q = QuantizeLinear(x, s, z)
    d = DequantizeLinear(q, s, z)
    k = DequantizeLinear<axis=0>(w, ws, wz)
    c = Conv(d, k, b)
    p = QuantizeLinear(c, out, oz)
    y = DequantizeLinear(p, out, oz)
}"""


@pytest.mark.parametrize(("channel", "wrong", "left"), [(0, 0, 0), (0, 30, 11), (1, 5, 5)])
def test_a_rounded_bias_explains_half_a_product_of_its_own_channel(channel: int, wrong: int, left: int) -> None:
    def change(found: dict[str, np.ndarray]) -> None:
        found["out0"][:, channel] += 0.05 * wrong

    large = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> net {LARGE}')
    for node in large.graph.node:
        node.name = node.output[0]
    samples = [{"x": np.full((1, 2, 4, 4), 3, np.float32)}]
    # A product of the first channel is 20 steps: its bias, rounded to 0, takes 9 of the 10 that are explained.
    report = compare_kernels(Wrong(change=change), large, samples)
    assert report.largest == pytest.approx(left, abs=0.1)
    assert (report.first_apart is None) == (wrong == 0)


@pytest.mark.parametrize("activations", ["int8", "uint8"])
def test_kernels_that_are_right_are_within_rounding_layer_by_layer(activations: str) -> None:
    report = compare_kernels(OnnxRuntime(), model(activations=activations), SAMPLES)
    assert [layer.name for layer in report.layers] == LAYERS
    assert report.samples == 3
    assert report.largest < 1.01
    assert report.first_apart is None


def test_the_layers_are_computed_by_integer_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Seen(OnnxRuntime):
        def load(self, engine: Path, threads: int | None = None) -> Runner:
            seen.extend(node.op_type for node in onnx.load(engine).graph.node)
            return super().load(engine, threads)

    compare_kernels(Seen(), model(), SAMPLES)
    assert sorted(op for op in seen if op != "QuantizeLinear" and op.startswith("Q")) == ["QGemm", *["QLinearConv"] * 2]
    assert not {"Conv", "Gemm", "FusedConv"} & set(seen)


def test_the_first_layer_that_is_wrong_is_named_and_those_behind_it_are_not_blamed() -> None:
    def change(found: dict[str, np.ndarray]) -> None:
        found["out1"].flat[5] += 10
        found["out2"] *= 3

    report = compared(change)
    assert report.layers[0].steps < 1.01
    assert report.first_apart == report.layers[1]
    assert str(report.first_apart) == "'Conv_2'"

    def first(found: dict[str, np.ndarray]) -> None:
        found["out0"][:] = 0

    # What layer 0 gives is not what layer 1 is fed.
    assert [layer.steps > 2 for layer in compared(first).layers] == [True, False, False]


@pytest.mark.parametrize(("steps", "apart"), [(0.99, False), (4, True)])
def test_one_step_more_is_rounding_and_four_are_not(steps: float, apart: bool) -> None:
    quantized = model()
    flow = Dataflow(quantized)
    (quantizer,) = [node for node in flow.nodes if node.op_type == "QuantizeLinear" and node.input[0].startswith("map")]
    step = float(flow.constant(quantizer.input[1]))

    def change(found: dict[str, np.ndarray]) -> None:
        found["out0"] += np.float32(steps * step)

    assert (compared(change).first_apart is not None) == apart


@pytest.mark.parametrize(("factor", "apart"), [(1.01, False), (1.1, True), (np.nan, True)])
def test_an_output_in_float_is_measured_by_its_reach(factor: float, apart: bool) -> None:
    def change(found: dict[str, np.ndarray]) -> None:
        found["out2"] *= np.float32(factor)

    report = compared(change)
    assert (report.first_apart is not None) == apart
    if apart:
        assert report.first_apart.name == "Gemm_5"


def test_a_network_without_quantized_layers_has_nothing_to_compare() -> None:
    assert compare_kernels(OnnxRuntime(), _examples.model(GRAPH), SAMPLES).layers == ()
