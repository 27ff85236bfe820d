"""Check that an engine's integer kernels compute the same as its file: each quantized layer against the layer in float.

ONNX Runtime without rewriting computes a Q/DQ file in float. That run gives the input and output of each quantized
layer on real samples. Then the layers are cut out with their Q/DQ pairs, each with its own input and output, and built
by the engine's backend. Every layer gets exactly its float inputs, so differences do not add up along the network, and
the first layer that differs is the first wrong one. Inputs and outputs are float, like the values around a pair: the
backend chooses the 8-bit type in between, as in the engine (OpenVINO treats a signed input differently from a pair,
which it may shift).

The difference that rounding can cause, in steps of the 8-bit output: an integer kernel sums integer products, so its
sum is exact. Float sums have 24 bits, so a sum near the border between two steps may be rounded differently, which is
one step. EXPLAINED allows one more for sums whose products are as large as a step. A kernel may also round the bias to
an integer, which shifts a channel's sum by up to half a product. That is mostly a small part of a step, but it is many
steps where a channel's weights are large and what comes out of them is small: it is taken off the difference first. A
pair of products that saturates in 16 bits loses up to 32,003 products.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper

from sesurgery.backends.base import Array, BuildOptions
from sesurgery.backends.inputs.onnx_file import OnnxFile
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.observe import observe

if TYPE_CHECKING:
    from sesurgery.backends.base import BuildsFromOnnx

EXPLAINED = 2.0
"""Steps of 8 bits that rounding explains."""
STEPS = 127
"""For a float output, a step is this part of its largest value."""
Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class LayerGap:
    """One quantized layer: its node, its module, and the largest difference in steps of 8 bits."""

    name: str
    scope: str
    steps: float

    def __str__(self) -> str:
        return f"{self.name!r}" + (f" (in {self.scope})" if self.scope else "")


@dataclass(frozen=True)
class IntegerReport:
    """All quantized layers in execution order, and the number of samples on which they were compared."""

    layers: tuple[LayerGap, ...]
    samples: int

    def __str__(self) -> str:
        apart = f"at most {self.largest:.2g} steps of 8 bits from float"
        return f"{len(self.layers)} layers on {self.samples} samples are {apart}"

    @property
    def largest(self) -> float:
        """The largest difference of any layer, in steps."""
        return max((layer.steps for layer in self.layers), default=0.0)

    @property
    def first_apart(self) -> LayerGap | None:
        """The first layer with a larger difference than rounding explains."""
        # NaN counts as a large difference.
        return next((layer for layer in self.layers if not layer.steps <= EXPLAINED), None)


@dataclass(frozen=True)
class _Layer:
    """A node with constant weights between Q/DQ pairs; `behind` is empty if its output stays float.

    `step` is one step of the 8-bit output, None if the output is float.
    """

    node: NodeProto
    before: tuple[NodeProto, NodeProto]
    weight: NodeProto
    behind: tuple[NodeProto, ...]
    step: float | None
    bias_rounding: NDArray[np.float64]
    """What rounding the bias to an integer shifts the output by at most, one number or one for each channel."""

    @property
    def reads(self) -> str:
        return str(self.before[1].output[0])

    @property
    def makes(self) -> str:
        return str((self.node, *self.behind)[-1].output[0])

    def steps(self, expected: NDArray[np.generic], found: NDArray[np.generic]) -> float:
        """The largest difference in steps; for a float output, a step is a part of its largest value."""
        # Whatever has a bias has its channels second.
        rounding = self.bias_rounding.reshape(-1, *(1 for _ in expected.shape[2:]))
        apart = np.abs(expected.astype(np.float64) - found.astype(np.float64)) - rounding
        gap = float(apart.max(initial=0.0))
        step = self.step or float(np.abs(expected).max(initial=0.0)) / STEPS
        return gap / step if step else gap


def compare_kernels(backend: BuildsFromOnnx, model: onnx.ModelProto, samples: Sequence[Feeds]) -> IntegerReport:
    """Compare each quantized layer of a Q/DQ model in the backend's kernels and in float, on `samples` of one shape.

    Raises as `Backend.build` and `Backend.load` do, and SE602 if ONNX Runtime cannot run the model.
    """
    flow = Dataflow(model)
    layers = _layers(flow)
    if not layers or not samples:
        return IntegerReport((), len(samples))
    values = _in_float(model, flow, layers, samples)
    source = OnnxFile(Path(), model)
    with tempfile.TemporaryDirectory() as folder:
        cut, engine = Path(folder) / "layers.onnx", Path(folder) / f"layers.engine{backend.suffix}"
        onnx.save(_cut_out(model, flow, layers, values), cut)
        backend.build(cut, engine, BuildOptions("int8"))
        worst = np.zeros(len(layers))
        with backend.load(engine) as runner:
            for index in range(len(samples)):
                found = runner.infer({f"in{at}": values[layer.reads][index] for at, layer in enumerate(layers)})
                gaps = [layer.steps(values[layer.makes][index], found[f"out{at}"]) for at, layer in enumerate(layers)]
                worst = np.maximum(worst, gaps)
    return IntegerReport(
        tuple(
            LayerGap(layer.node.name, source.scope(layer.node.name), float(steps))
            for layer, steps in zip(layers, worst, strict=True)
        ),
        len(samples),
    )


def _layers(flow: Dataflow) -> list[_Layer]:
    readers: dict[str, list[NodeProto]] = {}
    for node in flow.nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for node in flow.nodes:
        factors = [flow.producer.get(name) for name in node.input[:2]]
        if len(factors) < 2 or any(factor is None or factor.op_type != "DequantizeLinear" for factor in factors):
            continue
        first, weight = (factor for factor in factors if factor is not None)
        quantizer = flow.producer.get(first.input[0])
        if quantizer is None or any(
            name not in flow.weights for name in (weight.input[0], *filter(None, node.input[2:]))
        ):
            continue
        behind = _pair_behind(node.output[0], readers)
        step = flow.constant(behind[0].input[1]) if behind else None
        rounding = _bias_rounding(flow, node, first, weight)
        behind_step = None if step is None else float(np.max(step))
        found.append(_Layer(node, (quantizer, first), weight, behind, behind_step, rounding))
    return found


def _bias_rounding(flow: Dataflow, node: NodeProto, first: NodeProto, weight: NodeProto) -> NDArray[np.float64]:
    scales = [flow.constant(factor.input[1]) for factor in (first, weight)]
    if not any(node.input[2:]) or any(scale is None for scale in scales):
        return np.zeros(1)
    one, other = (np.asarray(scale, np.float64).reshape(-1) for scale in scales)
    return one * other / 2


def _pair_behind(value: str, readers: Mapping[str, list[NodeProto]]) -> tuple[NodeProto, ...]:
    """The Q/DQ pair that is the only reader of a value, or nothing."""
    pair: list[NodeProto] = []
    for operator in ("QuantizeLinear", "DequantizeLinear"):
        after = readers.get(value, [])
        if len(after) != 1 or after[0].op_type != operator:
            return ()
        pair.append(after[0])
        value = after[0].output[0]
    return tuple(pair)


def _in_float(
    model: onnx.ModelProto, flow: Dataflow, layers: Sequence[_Layer], samples: Sequence[Feeds]
) -> dict[str, NDArray[np.generic]]:
    """The inputs and outputs of the layers on each sample, computed in float because rewriting is off."""
    names = [name for layer in layers for name in (layer.reads, layer.makes)]
    seen = list(observe(model, names, samples, flow))
    return {name: np.stack([values[name] for values in seen]) for name in names}


def _cut_out(
    model: onnx.ModelProto, flow: Dataflow, layers: Sequence[_Layer], values: Mapping[str, NDArray[np.generic]]
) -> onnx.ModelProto:
    """A model with all layers and their pairs in parallel, each with its own input and output, for one sample."""
    graph = onnx.GraphProto(name="layers")
    for at, layer in enumerate(layers):
        value = f"in{at}"
        for node in layer.before:
            value = _copied(graph, node, value, at)
        factor = _copied(graph, layer.weight, layer.weight.input[0], at)
        value = _copied(graph, layer.node, value, at, factor)
        for node in layer.behind:
            value = _copied(graph, node, value, at)
        graph.node[-1].output[0] = f"out{at}"
        for given, name, made in ((graph.input, f"in{at}", layer.reads), (graph.output, f"out{at}", layer.makes)):
            given.append(helper.make_tensor_value_info(name, flow.dtype(made), values[made][0].shape))
    needed = {name for node in graph.node for name in node.input}
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _copied(graph: onnx.GraphProto, node: NodeProto, value: str, at: int, factor: str | None = None) -> str:
    """Add a copy for layer `at` that reads `value` (and `factor`); returns the name of its output."""
    copy = graph.node.add()
    copy.CopyFrom(node)
    copy.name, copy.input[0], copy.output[0] = f"{node.name}:{at}", value, f"{node.output[0]}:{at}"
    if factor is not None:
        copy.input[1] = factor
    return str(copy.output[0])
