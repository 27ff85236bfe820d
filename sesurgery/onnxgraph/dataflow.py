"""The producer, the readers, the type and the shape of each value of an ONNX graph.

A value is *data* if it is computed from the content of a graph input; weights, constants and shapes are not data.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from sesurgery.onnxgraph.inference import inferred

Shape = tuple[int | str | None, ...]


class Dataflow:
    """A read-only index of the main graph. Raises onnx's InferenceError if types are inconsistent."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = inferred(model, check_types=True)
        self.nodes: tuple[NodeProto, ...] = tuple(graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.inputs = {value.name for value in graph.input}
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in self.inputs}
        self._types = {value.name: value.type.tensor_type for value in (*graph.input, *graph.output, *graph.value_info)}
        self._data = self._find_data()

    def dtype(self, value: str) -> int:
        """The ONNX element type of a value; UNDEFINED if inference does not know it."""
        if value in self.weights:
            return int(self.weights[value].data_type)
        return int(self._types[value].elem_type) if value in self._types else TensorProto.UNDEFINED

    def shape(self, value: str) -> Shape | None:
        """The dimensions: a name if symbolic, None if unknown; None as a whole if the rank is unknown."""
        if value in self.weights:
            return tuple(self.weights[value].dims)
        if value not in self._types or not self._types[value].HasField("shape"):
            return None
        return tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
            for dim in self._types[value].shape.dim
        )

    def constant(self, value: str) -> NDArray[np.generic] | None:
        """The array behind a weight or a Constant node, or None."""
        # TorchScript's exporter stores equal weights once, with an Identity for each use.
        while (node := self.producer.get(value)) is not None and node.op_type == "Identity":
            value = node.input[0]
        if value in self.weights:
            return onnx.numpy_helper.to_array(self.weights[value])
        node = self.producer.get(value)
        if node is not None and node.op_type == "Constant" and node.attribute[0].name == "value":
            return onnx.numpy_helper.to_array(node.attribute[0].t)
        return None

    def is_data(self, value: str) -> bool:
        return value in self._data

    def axes(self, node: NodeProto) -> tuple[int, ...] | None:
        """The axes of a Reduce node, non-negative and sorted; None if they are not constant."""
        rank = len(self.shape(node.input[0]) or ())
        for attribute in node.attribute:
            if attribute.name == "axes":
                return tuple(sorted(axis % rank for axis in attribute.ints))
        if len(node.input) < 2 or not node.input[1]:
            return tuple(range(rank))
        constant = self.constant(node.input[1])
        return None if constant is None else tuple(sorted(int(axis) % rank for axis in np.ravel(constant)))

    def _find_data(self) -> set[str]:
        data = set(self.inputs)
        for node in self.nodes:
            if node.op_type not in ("Shape", "Size") and _any_in(node.input, data):
                data.update(name for name in node.output if name)
        return data


def _any_in(names: Iterable[str], known: set[str]) -> bool:
    return any(name in known for name in names)
