"""fp32 -> mixed fp16 or bf16, with the gates of channel attention kept in fp32.

A squeeze sums H x W values of a channel before it divides. In fp16 that sum overflows at 65504: on a map of 112 x 112 a
mean of 5.3 is enough. The squeeze becomes inf, and the gate saturates, or becomes NaN if an activation multiplies inf
by zero (pytorch/pytorch#43992 reports it in an SE network under AMP). An engine may sum in fp32, but that is not
guaranteed. So the whole gate branch (squeeze, both projections, activation, gate) stays fp32. It works on C numbers
while the map has C x H x W, so it is cheap, and one gate value scales a whole map, so its error does not average out.
The Cast is where the gate meets the map, and that Mul runs in fp16. Other sums over many values and softmax stay fp32
too, and so do operators that ONNX defines only for fp32 and nodes with a weight beyond the range of fp16.

A value can leave fp16's range inside a network even if every weight is within it. Only data show that: `ranges.measure`
gives the largest value of each tensor, and nodes that read or write a value beyond SAFE stay fp32. bf16 has the range
of fp32 and 8 bits of mantissa. It needs no such check and keeps the same nodes, because sums of thousands of values
lose most of their accuracy in 8 bits. Operators support bf16 from opset 22 on; an older model is converted.

`convert_float_to_float16` of onnxconverter-common 1.16 is not used. With nodes to keep, it rounds a value that two of
them share through fp16, turns a float32 output of a kept node into float16 (with or without keep_io_types), and breaks
graphs with a Cast to float or with a node that reads a graph output.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, numpy_helper

from sesurgery.lowering.base import Example, Lowered, Pass, run
from sesurgery.lowering.precision.kept_fp32 import asked_for, computed, in_gate, left
from sesurgery.lowering.precision.ranges import Reach
from sesurgery.lowering.precision.retyping import (
    BFLOAT16,
    FLOAT,
    FLOAT16,
    HALVES,
    Half,
    Retyping,
    computes,
    may_be_half,
    prepare,
)
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.gates import gate_branches, is_squeeze
from sesurgery.onnxgraph.inference import typed
from sesurgery.onnxgraph.opset import convert, opset
from sesurgery.reasons import Reason

OLDEST_OPSET = 13
SAFE = 65504 / 4
"""A value beyond this on the measured samples may overflow fp16 on others: a margin of two powers of two."""
KEPT_OPERATORS = {
    **dict.fromkeys(
        ("GlobalAveragePool", "GlobalLpPool", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2"),
        ("sum", "a sum over many values"),
    ),
    **dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "CumSum"), ("sum", "a sum over many values")),
    **dict.fromkeys(("Softmax", "LogSoftmax"), ("exponentials", "a sum of exponentials")),
    **dict.fromkeys(
        ("InstanceNormalization", "GroupNormalization", "LpNormalization", "MeanVarianceNormalization"),
        ("squares", "a sum of squares"),
    ),
}
"""Operators that always stay fp32, with the kind and the text of the reason."""
FATES = {"fp16": "overflows fp16 at 65504", "bf16": "keeps 8 bits in bf16"}
"""What happens to a sum in 16 bits."""
NOT_IN = {"bf16": {"HardSwish": "TensorRT's parser takes fp32 and fp16 HardSwish only"}}
"""Operators that ONNX supports in a type and TensorRT does not."""
TYPED = frozenset({"Cast", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform"})
QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger"})


@dataclass(frozen=True)
class Precision(Pass):
    """Compute in `target` outside the gates. An edit for every float node.

    Inputs and outputs keep their types, or with `io="convert"` take the target's type unless an fp32 node needs them.
    `reaches` is the largest absolute value of each tensor on data, by name; missing values are assumed to be small.
    """

    after: ClassVar[tuple[str, ...]] = (
        *("linear_to_conv", "squeeze_hoist", "squeeze_hoist_spatial", "squeeze_layout", "gate_epilogue"),
        "gate_weights",
    )

    # 11 bits per value, and errors add up over the depth of a network. bf16 is not computed here for comparison.
    tolerance: ClassVar[float] = 5e-2

    target: Literal["fp16", "bf16"] = "fp16"
    io: Literal["keep", "convert"] = "keep"
    reaches: Mapping[str, Reach] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    """Globs over modules whose nodes stay fp32 on request."""

    @property
    def half(self) -> Half:
        return HALVES[self.target]

    def requires(self, model: onnx.ModelProto) -> str | None:
        graph = model.graph
        newest = onnx.defs.onnx_opset_version()
        if not OLDEST_OPSET <= (found := opset(model)) <= newest:
            return f"the opset is {found}, supported are {OLDEST_OPSET} to {newest}"
        if model.functions or any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
            return "it holds functions or control flow (If, Loop, Scan): inline it first"
        if any(tensor.data_location == TensorProto.EXTERNAL for tensor in graph.initializer):
            return "its weights are still outside the file: load the external data first"
        if quantized := sorted({node.op_type for node in graph.node} & QUANTIZED):
            return f"it is quantized already ({', '.join(quantized)})"
        for tensor in graph.initializer:
            if tensor.data_type in (FLOAT16, BFLOAT16):
                word = TensorProto.DataType.Name(tensor.data_type).lower()
                return f"weight {tensor.name!r} is {word} already: export in float32"
        try:
            flow = Dataflow(model)
        except onnx.shape_inference.InferenceError as error:
            return f"its types do not work out: {error}"
        if not any(computes(node, flow) for node in flow.nodes):
            return "nothing in it computes in float32"
        if isinstance(converted := convert(model, self.half.opset), str):
            return f"{self.target} needs opset {self.half.opset}, and {converted}"
        return None

    def apply(self, model: onnx.ModelProto) -> Lowered:
        copy = self.converted(model)
        prepare(copy.graph)
        flow = Dataflow(copy)
        kept = self.kept_nodes(flow, opset(copy))
        floats = [node for node in flow.nodes if computes(node, flow)]
        edits = tuple(
            computed(node, self.target) if (reason := kept.get(node.output[0])) is None else left(reason)
            for node in floats
        )
        chosen = {node.output[0] for node in floats} - set(kept)
        Retyping(copy, flow, chosen, self.half, opset(copy), ends=self.io == "convert").run()
        return Lowered(typed(copy), edits)

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
        converted = self.converted(before)
        was, now = Dataflow(converted), Dataflow(after)
        kept = self.kept_nodes(was, opset(converted))
        element = self.half.element
        for node in now.nodes:
            if node.op_type == "Conv" and node.output[0] not in kept and now.dtype(node.output[0]) != element:
                return f"convolution {node.name!r} does not compute in {self.target}"
        for old, new in zip(_ends(before), _ends(after), strict=True):
            types = {old.type.tensor_type.elem_type} | ({element} if self.io == "convert" else set())
            if old.name != new.name or new.type.tensor_type.elem_type not in types:
                return f"input or output {old.name!r} has another name or type"
        infinite = tuple(tensor.name for tensor in was.weights.values() if not _finite(tensor))
        for name, tensor in now.weights.items():
            if tensor.data_type == element and not _finite(tensor) and not name.startswith(infinite):
                return f"weight {name!r} overflowed"
        return None

    def kept_nodes(self, flow: Dataflow, version: int) -> dict[str, Reason]:
        """Why a node stays fp32, by its first output; `ensures` allows no other exception."""
        gates = gate_branches(flow)
        reasons = (
            (node.output[0], self._reason(node, flow, version, gates)) for node in flow.nodes if computes(node, flow)
        )
        return {output: reason for output, reason in reasons if reason is not None}

    def _reason(self, node: NodeProto, flow: Dataflow, version: int, gates: dict[str, str]) -> Reason | None:
        if (asked := asked_for(node, self.keep)) is not None:
            return asked
        fate, name = FATES[self.target], node.name
        squeeze = gates.get(node.output[0])
        if squeeze is not None:
            if squeeze == node.output[0] and node.op_type != "Reshape":
                return Reason("squeeze", name, f"the squeeze of a gate: a sum over the whole map {fate}")
            return in_gate(name, flow.producer[squeeze].name)
        operator = "GlobalAveragePool" if node.op_type == "AveragePool" and is_squeeze(node, flow) else node.op_type
        if operator in KEPT_OPERATORS:
            kind, words = KEPT_OPERATORS[operator]
            return Reason(kind, name, f"{words} {fate}")
        if (missing := NOT_IN.get(self.target, {}).get(node.op_type)) is not None:
            return Reason("not_in_backend", name, missing)
        if node.op_type in TYPED:
            return Reason("typed", name, "an attribute sets its type")
        if (obstacle := may_be_half(node, self.half, version, flow)) is not None:
            return Reason("not_in_onnx", name, obstacle, node.op_type)
        for value in node.input:
            weight = flow.constant(value) if flow.dtype(value) == FLOAT else None
            if weight is not None and not np.array_equal(np.isfinite(weight), np.isfinite(self.half.of(weight))):
                return Reason("large_weight", name, f"{value!r} holds values beyond {self.half.largest:g}")
        return self._too_large(node)

    def _too_large(self, node: NodeProto) -> Reason | None:
        if self.target == "bf16":
            return None
        for role, names in (("its output", node.output), ("its input", node.input)):
            for name in names:
                reach = self.reaches.get(name)
                if reach is not None and reach.largest > SAFE:
                    return Reason("large_value", node.name, f"{role} {name!r} {reach}")
        return None

    def converted(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy in an opset whose operators support the target type."""
        found = convert(model, self.half.opset)
        if isinstance(found, str):
            raise ValueError(found)
        return found


def _ends(model: onnx.ModelProto) -> tuple[ValueInfoProto, ...]:
    return (*model.graph.input, *model.graph.output)


def _finite(tensor: TensorProto) -> bool:
    floats = (FLOAT, FLOAT16, BFLOAT16)
    return tensor.data_type not in floats or bool(np.isfinite(numpy_helper.to_array(tensor)).all())


def _check(graph: str, kept: dict[str, str], changed: int) -> None:
    """Run the pass on a graph in text form whose declared values are its weights; `kept` has a part of each reason."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {graph}')
    for weight in model.graph.value_info:
        shape = [dim.dim_value for dim in weight.type.tensor_type.shape.dim]
        scale = 1e6 if weight.name == "huge" else 0.1
        model.graph.initializer.append(numpy_helper.from_array(np.full(shape, scale, np.float32), weight.name))
    del model.graph.value_info[:]
    lowered = run(model, [Precision()])
    flow = Dataflow(lowered.model)
    found = {edit.where: edit.why for edit in lowered.edits if not edit.changed}
    by_output = {flow_node.output[0]: found[flow_node.name] for flow_node in flow.nodes if flow_node.name in found}
    assert sorted(by_output) == sorted(kept), by_output
    assert all(word in by_output[output] for output, word in kept.items()), by_output
    assert sum(edit.changed for edit in lowered.edits) == changed


def _example(name: str, graph: str, kept: dict[str, str], changed: int) -> Example:
    return Example(name, functools.partial(_check, graph, kept, changed))


EXAMPLES = (
    _example(
        "a squeeze-and-excitation gate stays, the convolution and the scaling change",
        """(float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,3,3] w, float[2,4,1,1] down, float[4,2,1,1] up> {
            map = Conv<pads=[1,1,1,1]>(x, w)
            squeeze = GlobalAveragePool(map)
            hidden = Conv(squeeze, down)
            active = Relu(hidden)
            raised = Conv(active, up)
            gate = Sigmoid(raised)
            y = Mul(map, gate)
        }""",
        {"squeeze": "the squeeze", "hidden": "gate", "active": "gate", "raised": "gate", "gate": "gate"},
        changed=2,
    ),
    _example(
        "a pool that scales nothing is kept alone",
        """(float[N,4,8,8] x) => (float[N,2] y) <float[4,2] w> {
            pool = GlobalAveragePool(x)
            flat = Flatten(pool)
            y = MatMul(flat, w)
        }""",
        {"pool": "sum over many values"},
        changed=2,
    ),
    _example(
        "a softmax at the end keeps the output float32",
        "(float[N,4] x) => (float[N,2] y) <float[4,2] w> { logits = MatMul(x, w)\n y = Softmax<axis=1>(logits) }",
        {"y": "exponentials"},
        changed=1,
    ),
    _example(
        "a weight beyond 65504 is kept rather than clipped",
        "(float[N,4] x) => (float[N,2] y) <float[4,2] huge> { logits = MatMul(x, huge)\n y = Relu(logits) }",
        {"logits": "beyond 65504"},
        changed=1,
    ),
)
