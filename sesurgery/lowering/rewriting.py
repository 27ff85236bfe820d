"""Rewriting a copied graph: replace nodes, add weights, and remove what is not read any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from sesurgery.lowering.base import Pass
from sesurgery.lowering.precision.retyping import prepare
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.gates import gate_branches
from sesurgery.onnxgraph.inference import inferred, size_of, typed
from sesurgery.onnxgraph.io import LIMIT
from sesurgery.onnxgraph.nodes import unique
from sesurgery.onnxgraph.opset import opset

AXES_ARE_INPUTS = 18
"""From this opset on, ReduceMean takes its axes as an input."""
OLDEST_OPSET = 13


def obstacle(model: onnx.ModelProto) -> str | None:
    """Why a graph cannot be rewritten, or None."""
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= (found := opset(model)) <= newest:
        return f"the opset is {found}, supported are {OLDEST_OPSET} to {newest}"
    if model.functions or any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        return "it holds functions or control flow (If, Loop, Scan): inline it first"
    if (size := size_of(model)) > LIMIT:
        return f"it has {size / 1e9:.1f} GB, types can be inferred up to 2 GiB"
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        return "its weights are still outside the file: load the external data first"
    try:
        graph = inferred(model, check_types=True)
    except onnx.shape_inference.InferenceError as error:
        return f"its types do not work out: {error}"
    # Inference gives a window that is larger than its map a size below zero, and goes on with it.
    for value in (*graph.value_info, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                return f"its sizes do not work out: a dimension of {value.name!r} would be {dim.dim_value}"
    return None


def lost_gates(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    """An error text if a pass changed the number of gates, or None."""
    found = (gate_branches(Dataflow(model)) for model in (before, after))
    was, now = (sum(name == squeeze for name, squeeze in branches.items()) for branches in found)
    return None if was == now else f"the model had {was} squeezes of gates and now has {now}"


class KeepsGates(Pass):
    """A pass that rewrites graphs with `Rewrite` and keeps the number of gates."""

    def requires(self, model: onnx.ModelProto) -> str | None:
        return obstacle(model)

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
        return super().ensures(before, after) or lost_gates(before, after)


class Rewrite:
    """A copy of a model and its dataflow; edits are collected and carried out by `finish`."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        prepare(self.model.graph)
        self.opset = opset(model)
        self.flow = Dataflow(self.model)
        self.outputs = {value.name for value in self.model.graph.output}
        self.uses: dict[str, list[NodeProto]] = {}
        for node in self.flow.nodes:
            for name in dict.fromkeys(node.input):
                self.uses.setdefault(name, []).append(node)
        self._taken = {name for node in self.flow.nodes for name in (*node.input, *node.output)} | self.flow.inputs
        self._taken |= set(self.flow.weights)
        self._names = {node.name for node in self.model.graph.node}
        self._instead: dict[str, list[NodeProto]] = {}
        self._reread: dict[str, str] = {}
        self._weights: list[onnx.TensorProto] = []

    def value(self, name: str) -> str:
        """An unused name for a new value, similar to `name`."""
        return unique(name, self._taken)

    def weight(self, name: str, array: NDArray[np.generic]) -> str:
        """Add a weight; returns its name."""
        name = self.value(name)
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, like: NodeProto, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
        """A new node in place of `like`, with the same module."""
        name = unique(f"{like.name}_{operator}", self._names)
        made = helper.make_node(operator, inputs, [output], name=name, **attributes)
        made.metadata_props.extend(like.metadata_props)
        return made

    def mean(self, like: NodeProto, value: str, output: str, axes: tuple[int, ...], keepdims: bool) -> NodeProto:
        """A new ReduceMean in the form that the model's opset has."""
        if self.opset < AXES_ARE_INPUTS:
            return self.node(like, "ReduceMean", [value], output, axes=axes, keepdims=int(keepdims))
        constant = self.weight(f"{output}_axes", np.array(axes, np.int64))
        return self.node(like, "ReduceMean", [value, constant], output, keepdims=int(keepdims))

    def replace(self, node: NodeProto, made: Sequence[NodeProto]) -> None:
        """Replace a node; the new nodes must output every value of it that is read."""
        self._instead[node.output[0]] = list(made)

    def reread(self, old: str, new: str) -> None:
        """Let all readers of `old` read `new`; `old` may not be a graph output."""
        self._reread[old] = new

    def finish(self) -> onnx.ModelProto:
        """The rewritten model without dead nodes, with types and shapes inferred again."""
        graph = self.model.graph
        nodes = [made for node in graph.node for made in self._instead.get(node.output[0], [node])]
        for node in nodes:
            node.input[:] = [self._final(name) for name in node.input]
        graph.initializer.extend(self._weights)
        dead = self._dead(nodes)
        nodes = [node for node in nodes if node.output[0] not in dead]
        del graph.node[:]
        graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input} | self.outputs | self.flow.inputs
        # A weight that was never read is kept; one that is not read any more is removed.
        idle = set(self.flow.weights) - set(self.uses)
        kept = [tensor for tensor in graph.initializer if tensor.name in read or tensor.name in idle]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        # Old shapes of changed values would contradict the inferred ones.
        made_by = {name for nodes in self._instead.values() for node in nodes for name in node.output}
        known = {name for node in nodes for name in node.output} - made_by | {tensor.name for tensor in kept}
        infos = [value for value in graph.value_info if value.name in known]
        del graph.value_info[:]
        graph.value_info.extend(infos)
        return typed(self.model)

    def _final(self, name: str) -> str:
        while name in self._reread:
            name = self._reread[name]
        return name

    def _dead(self, nodes: Sequence[NodeProto]) -> set[str]:
        """First outputs of the nodes that were read before and are not any more."""
        readers = Counter(name for node in nodes for name in set(node.input))
        dead: set[str] = set()
        for node in reversed(nodes):
            names = [name for name in node.output if name]
            was_read = any(name in self.uses or name not in self.flow.producer for name in names)
            if was_read and not any(readers[name] or name in self.outputs for name in names):
                dead.add(node.output[0])
                readers.subtract(set(node.input))
        return dead
