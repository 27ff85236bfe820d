"""fp32 -> int8: large products read 8-bit values, the gates of channel attention stay fp32.

A convolution, Gemm or MatMul with constant weights reads its input and its weights through QuantizeLinear and
DequantizeLinear, and its output is quantized again. The network's outputs are not quantized, because 8 bits would make
different logits equal. These pairs are ONNX's form of int8: each compiler replaces them by integer kernels.

Where the pairs are, and why:

- Not in a gate. Its values scale whole maps, so 1/127 is a visible step, and its products are too small to matter.
- After every convolution. ONNX Runtime has no integer kernel for a convolution whose output is not quantized, and the
  map that a squeeze and a scaling both read is then stored in 8 bits. Residual sums, ReLU, pools and concatenations
  read quantized values already: pairs around them changed no figure, but round once more.
- At the first convolution too: its input is rounded to 1/127 of the largest value, less than a camera's own step.
- Activations are signed with zero point 0, and biases stay fp32, because TensorRT takes nothing else. ONNX Runtime on
  x86 has integer kernels only for unsigned activations: for it they have zero point 128, which gives the same numbers.
- Weights are signed, with one scale per output channel. In a file for any processor they have 7 bits, -64 to 64.

Why 7: without VNNI, AMX or Arm's dot products an integer kernel multiplies unsigned by signed bytes and adds two
products in 16 bits (`vpmaddubsw`), which saturates beyond -32,768 and 32,767. An activation is at most 255 (signed ones
are shifted by 128 for these kernels), so a pair of 8-bit weights reaches 255 x 127 x 2 = 64,770, about twice the limit.
A pair of 7-bit weights reaches at most 255 x 64 x 2 = 32,640 < 32,768. So no pair saturates, for any network and any
samples. Later sums are in 32 bits. The cost is a step of the weights that is twice as large (figures in
docs/engines.md). `ensures` checks every written weight.

The ranges come from real samples (`calibration.calibrate`); they are never guessed.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from sesurgery.lowering import examples as _examples
from sesurgery.lowering.base import Example, Lowered, Pass, run
from sesurgery.lowering.precision.calibration import Feeds, Method, Range, calibrate
from sesurgery.lowering.precision.kept_fp32 import asked_for, computed, in_gate, left
from sesurgery.lowering.precision.retyping import computes, prepare
from sesurgery.lowering.rewriting import obstacle
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.gates import gate_branches
from sesurgery.onnxgraph.inference import typed
from sesurgery.onnxgraph.numerics import feeds
from sesurgery.onnxgraph.opset import opset
from sesurgery.reasons import Reason

OLDEST_OPSET, NEWEST_OPSET = 13, 20
OPERATORS = ("Conv", "Gemm", "MatMul")
"""Operators computed in int8: they have nearly all multiplications of a network."""
PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})
OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    # TensorRT's parser rejects an int32 bias.
    "QuantizeBias": False,
}


ACTIVATIONS = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
ZERO_POINTS = {int(TensorProto.INT8): 0, int(TensorProto.UINT8): 128}
WeightBits = Literal[7, 8]
LARGEST: Mapping[WeightBits, int] = {7: 64, 8: 127}
"""The largest absolute value of a written weight."""


@dataclass(frozen=True)
class Quantize(Pass):
    """Compute convolutions and linear layers outside the gates in int8. An edit for every float node.

    `ranges` holds the smallest and the largest value of each tensor, by its name in this model. `activations` is the
    type of values between layers. `weights` is the number of bits of weights: 8 only if no processor that runs the file
    adds pairs of products in 16 bits.
    """

    after: ClassVar[tuple[str, ...]] = (
        *("linear_to_conv", "squeeze_hoist", "squeeze_hoist_spatial", "squeeze_layout", "gate_epilogue"),
        "gate_weights",
    )
    # On the calibration samples: 8 bits per value, through the depth of a network. Random inputs would show nothing.
    tolerance: ClassVar[float] = 0.25

    ranges: Mapping[str, Range] = field(default_factory=dict)
    activations: Literal["int8", "uint8"] = "int8"
    weights: WeightBits = 7
    keep: tuple[str, ...] = ()
    """Globs over modules whose nodes stay fp32 on request."""

    def requires(self, model: onnx.ModelProto) -> str | None:
        if (found := obstacle(model)) is not None:
            return found
        if not OLDEST_OPSET <= (version := opset(model)) <= NEWEST_OPSET:
            return f"the opset is {version}, int8 needs {OLDEST_OPSET} to {NEWEST_OPSET}: export with another opset"
        if pairs := sorted({node.op_type for node in model.graph.node} & PAIR):
            return f"it is quantized already ({', '.join(pairs)})"
        flow = Dataflow(model)
        gates = gate_branches(flow)
        wanted = [node for node in flow.nodes if node.op_type in OPERATORS and _unfit(node, flow, gates) is None]
        if not wanted:
            return "nothing in it is worth int8: no convolution or linear layer with constant float32 weights"
        missing = [name for node in wanted for name in _values(node, flow) if name not in self.ranges]
        if missing:
            return f"the range of {missing[0]!r} is not known: calibrate on samples first"
        return None

    def apply(self, model: onnx.ModelProto) -> Lowered:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        prepare(copy.graph)
        flow = Dataflow(copy)
        gates = gate_branches(flow)
        reasons = {node.name: self._reason(node, flow, gates) for node in flow.nodes if computes(node, flow)}
        chosen = [name for name, reason in reasons.items() if reason is None]
        if chosen:
            copy = self._quantized(copy, flow, chosen)
        nodes = {node.name: node for node in flow.nodes}
        edits = tuple(
            computed(nodes[name], "int8") if reason is None else left(reason) for name, reason in reasons.items()
        )
        return Lowered(typed(copy), edits)

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
        named = onnx.ModelProto()
        named.CopyFrom(before)
        prepare(named.graph)
        was, now = Dataflow(named), Dataflow(after)
        gates = gate_branches(was)
        wanted = {node.name for node in was.nodes if computes(node, was) and self._reason(node, was, gates) is None}
        for node in now.nodes:
            dequantized = [is_dequantized(name, now) for name in node.input[:2]]
            if node.name in wanted and not all(dequantized):
                return f"{node.op_type} {node.name!r} does not compute in int8"
            if node.op_type in OPERATORS and node.name not in wanted and any(dequantized):
                return f"{node.op_type} {node.name!r} computes in int8, though it was to be left alone"
            if node.op_type in PAIR and not _is_central(node, now):
                return f"{node.op_type} {node.name!r} has a zero point that is not in the middle"
            if node.name in wanted and (most := _largest_weight(node, now)) > LARGEST[self.weights]:
                return f"{node.op_type} {node.name!r} has a weight of {most}, beyond {self.weights} bits"
        if [*before.graph.input, *before.graph.output] != [*after.graph.input, *after.graph.output]:
            return "an input or output has another name, type or shape"
        return None

    def _quantized(self, model: onnx.ModelProto, flow: Dataflow, chosen: list[str]) -> onnx.ModelProto:
        ranges = {name: (np.float32(low), np.float32(high)) for name, (low, high) in self.ranges.items()}
        quantizer = QDQQuantizer(
            model,
            True,  # a scale for every output channel of weights
            self.weights == 7,  # the library's reduce_range: -64 to 64
            QuantType.QInt8,
            ACTIVATIONS[self.activations],
            TensorsData(CalibrationMethod.MinMax, ranges),
            chosen,
            [],
            list(OPERATORS),
            OPTIONS,
        )
        with contextlib.redirect_stdout(io.StringIO()):
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        made: onnx.ModelProto = quantizer.model.model
        made.producer_name, made.producer_version = model.producer_name, model.producer_version
        _free_outputs(made.graph)
        return made

    def _reason(self, node: NodeProto, flow: Dataflow, gates: Mapping[str, str]) -> Reason | None:
        if (asked := asked_for(node, self.keep)) is not None:
            return asked
        if (unfit := _unfit(node, flow, gates)) is not None:
            return unfit
        for name in _values(node, flow):
            if name not in self.ranges:
                return Reason("unknown_range", node.name, f"the range of {name!r} is not known")
            if not np.isfinite(self.ranges[name]).all():
                return Reason("infinite", node.name, f"{name!r} is infinite on some samples")
        return None


def is_dequantized(value: str, flow: Dataflow) -> bool:
    """Whether a value comes directly from a DequantizeLinear."""
    node = flow.producer.get(value)
    return node is not None and node.op_type == "DequantizeLinear"


def _is_central(node: NodeProto, flow: Dataflow) -> bool:
    point = flow.constant(node.input[2])
    return point is not None and bool(np.all(point == ZERO_POINTS[flow.dtype(node.input[2])]))


def _largest_weight(node: NodeProto, flow: Dataflow) -> int:
    weights = flow.constant(flow.producer[node.input[1]].input[0])
    return 0 if weights is None or not weights.size else int(np.abs(weights.astype(np.int16)).max())


def ranges_of(model: onnx.ModelProto, samples: Sequence[Feeds], method: Method) -> dict[str, Range]:
    """What `Quantize` needs to know about a model, measured on samples by `minmax`, `entropy` or `percentile`."""
    named = onnx.ModelProto()
    named.CopyFrom(model)
    prepare(named.graph)
    return calibrate(named, OPERATORS, samples, method)


def _free_outputs(graph: onnx.GraphProto) -> None:
    """Remove the pair from each of the network's outputs, so that its node writes the output itself."""
    made_by = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        last = made_by[output.name]
        if last.op_type != "DequantizeLinear" or last.input[0] not in made_by:
            continue
        first = made_by[last.input[0]]
        made_by[first.input[0]].output[0] = output.name
        graph.node.remove(first)
        graph.node.remove(last)


def _unfit(node: NodeProto, flow: Dataflow, gates: Mapping[str, str]) -> Reason | None:
    """Why a node stays fp32, whatever its values are; None if it may compute in int8."""
    squeeze = gates.get(node.output[0])
    if squeeze is not None:
        return in_gate(node.name, flow.producer[squeeze].name)
    if node.op_type == "ConvTranspose":
        return Reason("transposed", node.name, "a transposed convolution has no int8 kernel in TensorRT-RTX")
    if node.op_type not in OPERATORS:
        text = f"{node.op_type} has few operations: it computes in fp32 between quantized values"
        return Reason("few_operations", node.name, text, node.op_type)
    if flow.dtype(node.input[0]) != TensorProto.FLOAT:
        return Reason("not_float32", node.name, "it does not compute in float32")
    if node.input[1] not in flow.weights:
        text = f"the second factor of {node.op_type} is not constant"
        return Reason("computed_factor", node.name, text, node.op_type)
    return None


def _values(node: NodeProto, flow: Dataflow) -> tuple[str, ...]:
    """The activations that are quantized for a node: its input, and its output unless that is one of the network's."""
    return (node.input[0], node.output[0])


def _check() -> None:
    """The gate stays, the convolution and the classifier change, and the outputs stay close."""
    given = _examples.model(GRAPH)
    fed = feeds(given)
    samples = [{name: array[index : index + 1] for name, array in fed.items()} for index in range(2)]
    lowered = run(given, [Quantize(ranges_of(given, samples, "minmax"))], verify=True)
    assert [edit.why for edit in lowered.edits if edit.changed] == ["Conv computes in int8", "Gemm computes in int8"]
    assert sum("gate" in edit.why for edit in lowered.edits if not edit.changed) == 5
    assert lowered.differences["quantize"] < 0.05
    flow = Dataflow(lowered.model)
    assert [
        node.output[0] for node in flow.nodes if node.op_type == "Conv" and is_dequantized(node.input[1], flow)
    ] == ["map"]


GRAPH = """(float[N,3,8,8] x) => (float[N,2] y)
<float[4,3,3,3] w, float[2,4,1,1] down, float[4,2,1,1] up, float[4,2] fc>
{
    map = Conv<pads=[1,1,1,1]>(x, w)
    squeeze = GlobalAveragePool(map)
    hidden = Conv(squeeze, down)
    active = Relu(hidden)
    raised = Conv(active, up)
    gate = Sigmoid(raised)
    scaled = Mul(map, gate)
    pooled = GlobalMaxPool(scaled)
    flat = Flatten(pooled)
    y = Gemm(flat, fc)
}"""


def _unknown() -> None:
    """A model without ranges is refused with the name of a value."""
    assert "is not known" in str(Quantize().requires(_examples.model(GRAPH)))


EXAMPLES = (
    Example(
        "a squeeze-and-excitation gate stays, the convolution and the classifier change", functools.partial(_check)
    ),
    Example("a missing range is an error", functools.partial(_unknown)),
)
