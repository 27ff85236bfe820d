"""The neutral picture of an ONNX file's graph, and where each reading in it really is.

A view's names are the file's value names. What is no data (weights, constants, the arithmetic of shapes) is left out,
so a slot counts only what depends on the network's input. Two kinds of nodes stand for something else:

- a convolution whose norm was folded into it is drawn as both, `NAME~conv` and the norm `NAME`, since the two have
  places of their own in PyTorch; nothing can be put between them;
- a node of several outputs is drawn as itself, `NAME()`, and each output as reading it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto

from sesurgery.graph import GraphView, NodeFacts, Op, Shape
from sesurgery.surgeons import onnx_scopes
from sesurgery.surgeons.onnx_idioms import Merged, merged
from sesurgery.surgeons.onnx_ops import ONNX_DOMAINS, attributes, captured, convolution, kind
from sesurgery.surgeons.onnx_shapes import Values, image_input, infer

OUTPUT = "output()"
FOLDED = "~conv"


@dataclass(frozen=True)
class Place:
    """One reading in the file: input `slot` of node `node`, or output number `slot` of the graph where `node` is -1."""

    node: int
    slot: int


@dataclass(frozen=True)
class Drawing:
    """A view, with the places in the file of each node's readings, slot by slot; none where nothing can be rerouted."""

    view: GraphView
    readings: dict[str, tuple[tuple[Place, ...], ...]]
    values: Values


def draw(model: onnx.ModelProto, shape: Shape) -> Drawing:
    """Draw the top-level graph for an image of that shape; subgraphs are drawn as the values they read."""
    sketch = _Sketch(model, infer(model, shape))
    facts, readings = [], {}
    for fact, places in sketch.lines():
        facts.append(fact)
        readings[fact.name] = places
    return Drawing(GraphView(facts), readings, sketch.values)


Places = tuple[tuple[Place, ...], ...]


class _Sketch:
    def __init__(self, model: onnx.ModelProto, values: Values) -> None:
        self.model = model
        self.values = values
        self.nodes: tuple[NodeProto, ...] = tuple(model.graph.node)
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = [value.name for value in model.graph.input if value.name not in self.weights]
        self.producer: dict[str, int] = {
            name: index for index, node in enumerate(self.nodes) for name in node.output if name
        }
        self.readers: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for name in dict.fromkeys((*node.input, *captured(node))):
                self.readers[name].append(index)
        self.live = self._live()
        outputs = frozenset(value.name for value in model.graph.output)
        self.merged = merged(self, outputs)
        self.hidden = {index for one in self.merged.values() for index in one.nodes[:-1]}
        self.read = outputs | self.readers.keys()

    def data(self, node: NodeProto) -> tuple[str, ...]:
        return tuple(name for name in node.input if name in self.live)

    def scalar(self, node: NodeProto) -> bool:
        return any(constant is not None and constant.size == 1 for constant in map(self.constant, node.input))

    def lines(self) -> Iterator[tuple[NodeFacts, Places]]:
        """Every node of the view with the places of its readings, in the file's order."""
        for name in self.inputs:
            yield NodeFacts(name, Op.INPUT, (), "", self.values.map(name)), ()
        for index in range(len(self.nodes)):
            if index not in self.hidden:
                yield from self._node(index)
        outputs = [(at, value.name) for at, value in enumerate(self.model.graph.output) if value.name in self.live]
        places = tuple((Place(-1, at),) for at, _ in outputs)
        yield NodeFacts(OUTPUT, Op.OUTPUT, tuple(name for _, name in outputs)), places

    def _node(self, index: int) -> Iterator[tuple[NodeFacts, Places]]:
        node = self.nodes[index]
        names = [name for name in node.output if name in self.live and (name in self.read or name == node.output[0])]
        if not names:
            return
        scope = onnx_scopes.plain(self._scope(node))
        if index in self.merged:
            one = self.merged[index]
            op = Op.NORM if one.norm else Op.ACT
            yield NodeFacts(names[0], op, (one.source,), scope, self.values.map(names[0])), (self._entries(one),)
            return
        data = self.data(node)
        places: Places = tuple((Place(index, slot),) for slot, name in enumerate(node.input) if name in self.live)
        inner = tuple(name for name in captured(node) if name in self.live)
        data, places = (*data, *inner), (*places, *(() for _ in inner))
        op = kind(node, data, self._axes(node), self.values)
        if len(names) > 1:
            whole = f"{names[0]}()"
            yield NodeFacts(whole, op, data, scope), places
            for name in names:
                yield NodeFacts(name, Op.OTHER, (whole,), scope, self.values.map(name)), ((),)
            return
        shape = self.values.map(names[0])
        facts = convolution(node, self.values) if op is Op.CONV else None
        folded = onnx_scopes.of_metadata(node) if op is Op.CONV else None
        if folded and (own := self._weight_scope(node)) and own != folded:
            yield NodeFacts(names[0] + FOLDED, op, data, scope, shape, facts), places
            yield NodeFacts(names[0], Op.NORM, (names[0] + FOLDED,), onnx_scopes.plain(folded), shape), ((),)
            return
        yield NodeFacts(names[0], op, data, scope, shape, facts), places

    def _entries(self, one: Merged) -> tuple[Place, ...]:
        return tuple(
            Place(index, slot)
            for index in one.nodes
            for slot, name in enumerate(self.nodes[index].input)
            if name == one.source
        )

    def _scope(self, node: NodeProto) -> str:
        weight = self._weight_scope(node)
        if node.op_type in ("Conv", "ConvTranspose") and weight:
            return weight
        told = onnx_scopes.of_metadata(node)
        if told is None:
            told = onnx_scopes.of_name(node)
        return told if told is not None else weight or ""

    def _weight_scope(self, node: NodeProto) -> str | None:
        if len(node.input) < 2 or node.input[1] in self.live:
            return None
        name = node.input[1]
        # Weights pass through Identity (one tensor kept for two equal ones) or a Cast, a Constant node is one itself.
        while onnx_scopes.of_weight(name) is None and name in self.producer:
            maker = self.nodes[self.producer[name]]
            if maker.op_type not in ("Identity", "Cast", "DequantizeLinear"):
                return None
            name = maker.input[0]
        return onnx_scopes.of_weight(name)

    def constant(self, name: str) -> np.ndarray | None:
        """The array behind a weight or a Constant node, or None."""
        if name in self.weights:
            return onnx.numpy_helper.to_array(self.weights[name])
        index = self.producer.get(name)
        if index is None or self.nodes[index].op_type != "Constant":
            return None
        for key, given in attributes(self.nodes[index]).items():
            if key == "value":
                return onnx.numpy_helper.to_array(given)
            if key in ("value_int", "value_ints", "value_float", "value_floats"):
                return np.asarray(given)
        return None

    def _axes(self, node: NodeProto) -> tuple[int, ...] | None:
        if not node.op_type.startswith("Reduce"):
            return None
        given = attributes(node)
        if "axes" in given:
            return tuple(int(axis) for axis in given["axes"])
        constant = self.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        return None if constant is None else tuple(int(axis) for axis in np.ravel(constant))

    def _live(self) -> frozenset[str]:
        """Every value that is computed from what an input holds; its shape alone is not what it holds."""
        live = set(self.inputs)
        for node in self.nodes:
            if node.op_type in ("Shape", "Size") and node.domain in ONNX_DOMAINS:
                continue
            # A Reshape's or a Resize's target may come from a shape: that path is no data.
            if any(name in live for name in (*node.input, *captured(node))):
                live.update(name for name in node.output if name)
        return frozenset(live)


def input_shape(model: onnx.ModelProto) -> Shape | None:
    """(channels, height, width) as far as the file itself fixes all three."""
    dims = image_input(model).type.tensor_type.shape.dim
    sizes = [dim.dim_value for dim in dims]
    return (sizes[1], sizes[2], sizes[3]) if len(sizes) == 4 and all(size > 0 for size in sizes[1:]) else None
