"""Do an engine's integer kernels compute what its file says? Each quantized layer beside the same layer in float.

A file in Q/DQ form has one meaning, which ONNX Runtime computes in float when it may rewrite nothing. From that run come
the 8-bit values that each quantized layer reads and makes on real samples. The layers are then cut out, each between
an input and an output of its own, and built by the engine's backend. So every layer gets the very numbers that it has
in float, and what it does with them is its own doing: differences do not add up along the network, and the first
layer that parts is the first that is wrong.

How far apart rounding can bring the two, in steps of the 8-bit output: an integer kernel adds whole products, so its
sum is exact. Two things differ. Float adds in 24 bits and a kernel may round the bias to a whole product, which shifts
the sum by a small part of a step (a product is far smaller than a step); and then a sum next to the border between two
steps is rounded one way here and the other way there, which makes one step of it. EXPLAINED leaves one more for sums whose
products are as large as a step. A pair of products that saturates in 16 bits loses up to 32,003 products.
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
from sesurgery.backends.inputs.onnx_file import Source
from sesurgery.onnxgraph import numerics as _numerics
from sesurgery.onnxgraph.dataflow import Dataflow

if TYPE_CHECKING:
    from sesurgery.backends.base import Backend

EXPLAINED = 2.0
"""Steps of 8 bits that rounding explains."""
STEPS = 127
"""Of a float output, a step is this part of its largest value."""
Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class LayerGap:
    """One quantized layer: its node, the module it came from, and the largest difference, in steps of 8 bits."""

    name: str
    scope: str
    steps: float

    def __str__(self) -> str:
        return f"{self.name!r}" + (f" (in {self.scope})" if self.scope else "")


@dataclass(frozen=True)
class IntegerReport:
    """All quantized layers in the order in which they run, and on how many samples they were compared."""

    layers: tuple[LayerGap, ...]
    samples: int

    def __str__(self) -> str:
        return f"{len(self.layers)} layers on {self.samples} samples are at most {self.largest:.2g} steps of 8 bits from float"

    @property
    def largest(self) -> float:
        """The largest difference of any layer, in steps."""
        return max((layer.steps for layer in self.layers), default=0.0)

    @property
    def first_apart(self) -> LayerGap | None:
        """The first layer that is further from float than rounding explains."""
        # A difference that is no number is no small one.
        return next((layer for layer in self.layers if not layer.steps <= EXPLAINED), None)


@dataclass(frozen=True)
class _Layer:
    """A node with constant weights whose factors are dequantized; `reads` and `makes` are the values around it, `then` its quantizer."""

    node: NodeProto
    before: NodeProto
    weight: NodeProto
    then: NodeProto | None

    @property
    def reads(self) -> str:
        return self.before.input[0]

    @property
    def makes(self) -> str:
        return (self.then or self.node).output[0]


def compare_kernels(backend: Backend, model: onnx.ModelProto, samples: Sequence[Feeds]) -> IntegerReport:
    """Each quantized layer of a Q/DQ model, by the backend's kernels here and in float, on `samples` of one shape.

    Raises as `Backend.build` and `Backend.load` do, and SE602 where ONNX Runtime cannot run the model.
    """
    flow = Dataflow(model)
    layers = _layers(flow)
    if not layers or not samples:
        return IntegerReport((), len(samples))
    values = _in_float(model, flow, layers, samples)
    source = Source(Path(), model)
    with tempfile.TemporaryDirectory() as folder:
        cut, engine = Path(folder) / "layers.onnx", Path(folder) / f"layers.engine{backend.suffix}"
        onnx.save(_cut_out(model, flow, layers, values), cut)
        backend.build(cut, engine, BuildOptions("int8"))
        worst = np.zeros(len(layers))
        with backend.load(engine) as runner:
            for index in range(len(samples)):
                found = runner.infer({f"in{at}": values[layer.reads][index] for at, layer in enumerate(layers)})
                gaps = [_steps(values[layer.makes][index], found[f"out{at}"]) for at, layer in enumerate(layers)]
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
        pairs = [flow.producer.get(name) for name in node.input[:2]]
        before, weight = pairs if len(pairs) == 2 else (None, None)
        if before is None or weight is None or {before.op_type, weight.op_type} != {"DequantizeLinear"}:
            continue
        if any(name not in flow.weights for name in (weight.input[0], *filter(None, node.input[2:]))):
            continue
        after = readers.get(node.output[0], [])
        alone = len(after) == 1 and after[0].op_type == "QuantizeLinear"
        found.append(_Layer(node, before, weight, after[0] if alone else None))
    return found


def _in_float(
    model: onnx.ModelProto, flow: Dataflow, layers: Sequence[_Layer], samples: Sequence[Feeds]
) -> dict[str, NDArray[np.generic]]:
    """What the layers read and make on each sample, computed without an integer kernel: no rewriting puts one in."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    for name in dict.fromkeys(name for layer in layers for name in (layer.reads, layer.makes)):
        tapped.graph.output.append(helper.make_tensor_value_info(name, flow.dtype(name), None))
    return _numerics.outputs_of_all(tapped, samples)


def _cut_out(
    model: onnx.ModelProto, flow: Dataflow, layers: Sequence[_Layer], values: Mapping[str, NDArray[np.generic]]
) -> onnx.ModelProto:
    """The layers side by side, each between an input and an output of its own, in the shapes of one sample."""
    graph = onnx.GraphProto(name="layers")
    for at, layer in enumerate(layers):
        before, weight, node = NodeProto(), NodeProto(), NodeProto()
        before.CopyFrom(layer.before)
        weight.CopyFrom(layer.weight)
        node.CopyFrom(layer.node)
        before.name, weight.name = f"before{at}", f"weight{at}"
        before.input[0], before.output[0], weight.output[0] = f"in{at}", f"read{at}", f"factor{at}"
        node.input[:2] = [f"read{at}", f"factor{at}"]
        node.output[0] = f"out{at}" if layer.then is None else f"made{at}"
        graph.node.extend([before, weight, node])
        if layer.then is not None:
            then = NodeProto()
            then.CopyFrom(layer.then)
            then.name, then.input[0], then.output[0] = f"then{at}", f"made{at}", f"out{at}"
            graph.node.append(then)
        for given, name, made in ((graph.input, f"in{at}", layer.reads), (graph.output, f"out{at}", layer.makes)):
            given.append(helper.make_tensor_value_info(name, flow.dtype(made), values[made][0].shape))
    needed = {name for node in graph.node for name in node.input}
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _steps(expected: NDArray[np.generic], found: NDArray[np.generic]) -> float:
    """The largest difference in steps: of whole numbers one is a step, of floats a 127th of the largest value."""
    gap = float(np.abs(expected.astype(np.float64) - found.astype(np.float64)).max(initial=0.0))
    if np.issubdtype(expected.dtype, np.integer):
        return gap
    reach = float(np.abs(expected).max(initial=0.0))
    return gap * STEPS / reach if reach else gap
