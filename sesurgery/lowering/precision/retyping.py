"""Give nodes another float type: a value is computed in one type, and one shared Cast converts it to the other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.nodes import ONNX_DOMAINS, unique

FLOAT, FLOAT16, BFLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16


@dataclass(frozen=True)
class Half:
    """A float type of 16 bits: its name, its ONNX element type and its name in operator definitions."""

    word: str
    element: int
    formal: str
    opset: int
    """The oldest opset in which ONNX's operators support it."""

    @property
    def largest(self) -> float:
        """The largest finite value."""
        return float(ml_dtypes.finfo(self._numpy).max)  # type: ignore[no-untyped-call]

    def of(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """The array in this type; values beyond its range become infinite."""
        with np.errstate(over="ignore", under="ignore"):
            return array.astype(self._numpy)

    @property
    def _numpy(self) -> np.dtype[np.generic]:
        return np.dtype(helper.tensor_dtype_to_np_dtype(self.element))


HALVES = {
    "fp16": Half("fp16", FLOAT16, "tensor(float16)", 13),
    "bf16": Half("bf16", BFLOAT16, "tensor(bfloat16)", 22),
}


def computes(node: NodeProto, flow: Dataflow) -> bool:
    """Whether the node makes float32 values; a Constant is a weight, and shapes and indices are not floats."""
    return node.op_type != "Constant" and any(flow.dtype(name) == FLOAT for name in node.output if name)


def may_be_half(node: NodeProto, half: Half, opset: int, flow: Dataflow) -> str | None:
    """Why the operator's definition does not allow 16 bits; None if it does."""
    if node.domain not in ONNX_DOMAINS:
        return f"{node.domain}.{node.op_type} is not an operator of ONNX: the types it takes are not known"
    outputs = onnx.defs.get_schema(node.op_type, opset).outputs
    floats = [index for index, name in enumerate(node.output) if flow.dtype(name) == FLOAT]
    if all(half.formal in _formal(outputs, index).types for index in floats):
        return None
    return f"ONNX defines {node.op_type} without {half.word}"


def prepare(graph: onnx.GraphProto) -> None:
    """Name every node uniquely and make every float Constant a weight, so that each can be found and retyped."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        node.name = unique(node.name or f"{node.op_type}_{index}", taken)
    rest: list[NodeProto] = []
    for node in graph.node:
        value = node.attribute[0] if node.op_type == "Constant" else None
        if value is not None and value.name == "value" and value.t.data_type == FLOAT:
            graph.initializer.add().CopyFrom(value.t)
            graph.initializer[-1].name = node.output[0]
        else:
            rest.append(node)
    _replace(graph.node, rest)


class Retyping:
    """Changes `model`, which `prepare` went over, in place: nodes whose first output is in `chosen` compute in `half`.

    Graph inputs and outputs keep their types, or with `ends` those that are read and made in `half` take that type.
    """

    def __init__(
        self, model: onnx.ModelProto, flow: Dataflow, chosen: Collection[str], half: Half, opset: int, *, ends: bool
    ) -> None:
        self.graph = model.graph
        self.flow = flow
        self.chosen = chosen
        self.half = half
        self.opset = opset
        self.ends = ends
        self.taken = {name for node in flow.nodes for name in (*node.input, *node.output)} | flow.inputs
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, TensorProto] = {}
        self.made_half: set[str] = set()
        """The values that are computed in 16 bits."""
        self.inner: dict[str, str] = {}
        """The name of the 16-bit value behind a graph output, which keeps its own name and type."""
        self.twins: dict[tuple[str, int], str] = {}
        self.kept_weights = {
            name
            for node in flow.nodes
            for index, name in enumerate(node.input)
            if flow.dtype(name) == FLOAT and self._wanted(node, index) == FLOAT
        } | {value.name for value in model.graph.output}

    def run(self) -> None:
        outputs = {value.name for value in self.graph.output}
        if self.ends:
            for value in self.graph.input:
                if value.name not in outputs and self._read_in_half(value.name):
                    value.type.tensor_type.elem_type = self.half.element
                    self.made_half.add(value.name)
        for node in list(self.graph.node):
            node.input[:] = [
                self._read(name, wanted) if self.flow.dtype(name) == FLOAT else name
                for name, wanted in [(name, self._wanted(node, index)) for index, name in enumerate(node.input)]
            ]
            self.nodes.append(node)
            for name in node.output:
                if node.output[0] in self.chosen and self.flow.dtype(name) == FLOAT:
                    self.made_half.add(name)
                    if name in outputs and not self.ends:
                        self.inner[name] = unique(f"{name}_{self.half.word}", self.taken)
            node.output[:] = [self.inner.get(name, name) for name in node.output]
        self.nodes.extend(self._cast(inner, name, FLOAT) for name, inner in self.inner.items())
        _replace(self.graph.node, self.nodes)
        used = {name for node in self.nodes for name in node.input} | outputs | self.flow.inputs
        untouched = [tensor for tensor in self.graph.initializer if tensor.name not in self.weights]
        _replace(self.graph.initializer, [t for t in (*untouched, *self.weights.values()) if t.name in used])
        for value in self.graph.value_info:
            # torch's exporter declares weights here too.
            weight = self.weights.get(value.name)
            if value.name in self.made_half or (weight is not None and weight.data_type == self.half.element):
                value.type.tensor_type.elem_type = self.half.element
        for value in self.graph.output:
            if self.ends and value.name in self.made_half:
                value.type.tensor_type.elem_type = self.half.element

    def _read_in_half(self, name: str) -> bool:
        """Whether a graph input has readers, and all of them read it in 16 bits."""
        wanted = [
            self._wanted(node, index)
            for node in self.flow.nodes
            for index, read in enumerate(node.input)
            if read == name and self.flow.dtype(name) == FLOAT
        ]
        return self.half.element in wanted and FLOAT not in wanted

    def _wanted(self, node: NodeProto, index: int) -> int | None:
        """The type in which a node reads an input; None if it can be either."""
        if node.output[0] in self.chosen:
            schema = onnx.defs.get_schema(node.op_type, self.opset)
            return self.half.element if self.half.formal in _formal(schema.inputs, index).types else FLOAT
        # Shape, ArgMax or IsNaN of a value need no cast of it; Greater needs both of its operands in one type.
        floats = [name for name in node.input if self.flow.dtype(name) == FLOAT]
        if not computes(node, self.flow) and len(floats) == 1 and node.domain in ONNX_DOMAINS:
            return None
        return FLOAT

    def _read(self, name: str, wanted: int | None) -> str:
        """The name of a value in the `wanted` type; adds a Cast or a second weight if needed."""
        if name in self.flow.weights:
            return name if wanted != self.half.element else self._half_weight(name)
        source = self.inner.get(name, name)
        if wanted is None or wanted == (self.half.element if name in self.made_half else FLOAT):
            return source
        if (name, wanted) not in self.twins:
            twin = unique(f"{name}_{'fp32' if wanted == FLOAT else self.half.word}", self.taken)
            self.twins[name, wanted] = twin
            self.nodes.append(self._cast(source, twin, wanted))
        return self.twins[name, wanted]

    def _half_weight(self, name: str) -> str:
        element = self.half.element
        if (name, element) not in self.twins:
            # A weight keeps its name where it can: scopes are read from it.
            twin = unique(f"{name}_{self.half.word}", self.taken) if name in self.kept_weights else name
            self.twins[name, element] = twin
            array = numpy_helper.to_array(self.flow.weights[name])
            self.weights[twin] = numpy_helper.from_array(self.half.of(array), twin)
        return self.twins[name, element]

    def _cast(self, source: str, target: str, dtype: int) -> NodeProto:
        return helper.make_node("Cast", [source], [target], name=unique(f"{target}_cast", self.taken), to=dtype)


def _formal(parameters: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> onnx.defs.OpSchema.FormalParameter:
    # The last one stands for all the rest where it is variadic.
    return parameters[min(index, len(parameters) - 1)]


def _replace(field: Any, items: Iterable[NodeProto | TensorProto]) -> None:
    items = list(items)
    del field[:]
    field.extend(items)
