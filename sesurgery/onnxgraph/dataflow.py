"""Who makes and who reads each value of an ONNX graph, its type and shape, and where the gates of attention blocks are.

A value is *data* when it is computed from what a graph input holds; weights, constants and shapes are not data.

A gate is found by taint. Every squeeze (a spatial mean, sum, maximum or global pool, or the shares of a map that
squeeze_hoist_spatial adds up) taints its output; a node is tainted when all its data operands are. The first `Mul` that
joins tainted data with untainted data is the scaling of a feature map by a gate: everything tainted above its tainted
operand is the gate branch. So `x * relu6(x + 3) / 6` inside a branch does not end it (both operands are tainted), the
sum of an average and a maximum branch (CBAM) is one gate, and the pool before a classifier is none, because nothing
scales with it. A `Conv` of untainted data scales as well where its weights are a constant times tainted data.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

Shape = tuple[int | str | None, ...]

SQUEEZES = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceL1", "ReduceL2", "AveragePool", "MaxPool"}
    | {"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "Reshape"}
)
# They only repeat the gate's values over the map: the scaling they belong to is the Mul that reads them.
BROADCASTS = frozenset({"Expand", "Tile", "Resize", "Upsample"})


class Dataflow:
    """A read-only picture of the top-level graph. Raises onnx's InferenceError where types do not work out."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
        self.nodes: tuple[NodeProto, ...] = tuple(graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.inputs = {value.name for value in graph.input}
        self.weights = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in self.inputs}
        self._types = {value.name: value.type.tensor_type for value in (*graph.input, *graph.output, *graph.value_info)}
        self._data = self._find_data()

    def dtype(self, value: str) -> int:
        """The ONNX element type of a value; UNDEFINED where inference does not know it."""
        if value in self.weights:
            return int(self.weights[value].data_type)
        return int(self._types[value].elem_type) if value in self._types else TensorProto.UNDEFINED

    def shape(self, value: str) -> Shape | None:
        """The dimensions, a name where symbolic and None where unknown; None as a whole where the rank is unknown."""
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
        # TorchScript's exporter lets equal weights stand once, behind an Identity for each use.
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

    def gates(self) -> dict[str, str]:
        """Every node of every gate branch, squeeze included, by its first output, with the output of its squeeze."""
        squeeze_of: dict[str, str] = {}
        branches: dict[str, str] = {}
        for node in self.nodes:
            operands = [name for name in node.input if name in self._data]
            tainted = [name for name in operands if name in squeeze_of]
            if len(tainted) < len(operands) and (node.op_type == "Mul" or self._weights_are_scaled(node, squeeze_of)):
                for name in tainted:
                    self._collect(name, squeeze_of, branches)
            elif tainted and len(tainted) == len(operands):
                squeeze_of.update((name, squeeze_of[tainted[0]]) for name in node.output if name in self._data)
            elif self.is_squeeze(node):
                squeeze_of[node.output[0]] = node.output[0]
        return branches

    def _weights_are_scaled(self, node: NodeProto, squeeze_of: dict[str, str]) -> bool:
        """Whether a gate scales the weights of a convolution in the place of its input: gate_weights' form."""
        if node.op_type != "Conv" or node.input[0] in squeeze_of or node.input[1] not in squeeze_of:
            return False
        product = self.producer[node.input[1]]
        if product.op_type == "Cast":
            product = self.producer[product.input[0]]
        return product.op_type == "Mul" and any(self.constant(name) is not None for name in product.input)

    def _collect(self, value: str, squeeze_of: dict[str, str], branches: dict[str, str]) -> None:
        pending = [value]
        while pending:
            name = pending.pop()
            node = self.producer[name]
            if name not in squeeze_of or node.output[0] in branches:
                continue
            if node.op_type not in BROADCASTS:
                branches[node.output[0]] = squeeze_of[name]
            if squeeze_of[name] != name:
                pending.extend(operand for operand in node.input if operand in squeeze_of)

    def is_squeeze(self, node: NodeProto) -> bool:
        """Whether the node makes one value of each channel's whole map."""
        if node.op_type not in SQUEEZES:
            return False
        if node.op_type.startswith("Global"):
            return True
        before, after = self.shape(node.input[0]), self.shape(node.output[0])
        if before is None:
            return False
        if node.op_type.startswith("Reduce"):
            # Channels first, channels last, and maps flattened to (batch, channels, positions).
            return self.axes(node) in ({4: ((2, 3), (1, 2)), 3: ((2,),)}.get(len(before), ()))
        if node.op_type == "Reshape" and not self._adds_positions(self.producer.get(node.input[0])):
            return False
        return after is not None and len(before) in (3, 4) and len(after) == 4 and after[2:] == (1, 1) != before[2:]

    def _adds_positions(self, node: NodeProto | None) -> bool:
        """Whether a node is a constant times a flattened map, its positions added up: squeeze_hoist_spatial's forms."""
        if node is not None and node.op_type == "Cast":
            return self._adds_positions(self.producer.get(node.input[0]))
        if node is not None and node.op_type == "MatMul":
            return self.constant(node.input[0]) is not None
        return node is not None and node.op_type == "ReduceMean" and self.axes(node) == (2,) and self._masked(node)

    def _masked(self, node: NodeProto) -> bool:
        """Whether a node reads a value times a constant."""
        product = self.producer.get(node.input[0])
        if product is not None and product.op_type == "Cast":
            product = self.producer.get(product.input[0])
        return product is not None and product.op_type == "Mul" and self.constant(product.input[1]) is not None

    def axes(self, node: NodeProto) -> tuple[int, ...] | None:
        """The axes a Reduce node sums over, not negative and sorted; None where they are not constant."""
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
