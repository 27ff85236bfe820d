"""The neutral picture of an ONNX file's graph, and where each reading in it really is.

A view's names are the file's value names. What is not data (weights, constants, the arithmetic of shapes) is left out,
so a slot counts only what depends on the network's input; so is what no output of the file depends on. Some nodes stand
for something else:

- a convolution whose norm was folded into it is drawn as both, `NAME~conv` and the norm `NAME`, since the two have
  places of their own in PyTorch; nothing can be put between them;
- a node of several outputs is drawn as itself, `NAME()`, and each output as reading it; so are Slices that cut one map
  into all its groups of channels;
- a QuantizeLinear with the DequantizeLinear behind it is the value that was quantised: its readers are drawn as reading
  that value, and really read the dequantised one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from onnx import NodeProto

from sesurgery.graph import GraphView, NodeFacts, Op, Shape
from sesurgery.onnxgraph import scopes as onnx_scopes
from sesurgery.onnxgraph.inference import SMALL
from sesurgery.onnxgraph.nodes import attributes, captured
from sesurgery.onnxgraph.shapes import Values, image_input, infer, takes_channels_last
from sesurgery.surgeons.onnx.flow import computed_from, reached, unread
from sesurgery.surgeons.onnx.idioms import Merged, merged
from sesurgery.surgeons.onnx.ops import convolution, kind

OUTPUT = "output()"
FOLDED = "~conv"
SUM_OF_A_FILTER = 1e-3
"""How far the sum of a fixed filter may be from 1."""


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
    quantised: dict[str, int]
    """Each dequantised value that stands for another, with the node that quantises it."""
    unread: tuple[int, ...]
    """The nodes that compute from the input, and whose outputs nobody reads."""
    source: dict[str, str]
    """What was quantised, by the dequantised value that stands for it."""

    def true(self, name: str) -> str:
        """The value that another stands for once quantised: itself where it is none."""
        while name in self.source:
            name = self.source[name]
        return name


def draw(model: onnx.ModelProto, shape: Shape) -> Drawing:
    """Draw the top-level graph for an image of that shape; subgraphs are drawn as the values they read."""
    sketch = _Sketch(model, infer(model, shape))
    facts, readings = [], {}
    for fact, places in sketch.lines():
        facts.append(fact)
        readings[fact.name] = places
    return Drawing(GraphView(facts), readings, sketch.values, sketch.quantised, sketch.unread, sketch.source)


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
        self.outputs = tuple(value.name for value in model.graph.output)
        self.reached = reached(self.nodes, self.inputs, self.outputs)
        flowing = computed_from(self.nodes, self.inputs)
        self.live = flowing & self.reached
        self.quantised, self.source = self._quantised()
        self.readers: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            if self.reached.isdisjoint(node.output) or index in self.quantised.values():
                continue
            for name in dict.fromkeys(map(self.true, (*node.input, *captured(node)))):
                self.readers[name].append(index)
        self.unread = unread(self.nodes, flowing, self.outputs)
        outputs = frozenset(map(self.true, self.outputs))
        self.merged = merged(self, outputs)
        self.hidden = {index for one in self.merged.values() for index in one.nodes[:-1]}
        self.hidden |= {*self.quantised.values(), *(self.producer[name] for name in self.quantised)}
        self.splits = self._splits(outputs)
        self.read = outputs | self.readers.keys()

    def true(self, name: str) -> str:
        """The value that another stands for once quantised: itself where it is none."""
        while name in self.source:
            name = self.source[name]
        return name

    def data(self, node: NodeProto) -> tuple[str, ...]:
        return tuple(self.true(name) for name in node.input if name in self.live)

    def scalar(self, node: NodeProto) -> bool:
        return any(constant is not None and constant.size == 1 for constant in map(self.constant, node.input))

    def scope(self, node: NodeProto) -> str:
        return onnx_scopes.plain(self._scope(node))

    def lines(self) -> Iterator[tuple[NodeFacts, Places]]:
        """Every node of the view with the places of its readings, in the file's order."""
        for name in self.inputs:
            yield NodeFacts(name, Op.INPUT, (), "", self.values.map(name)), ()
        for index in range(len(self.nodes)):
            if index not in self.hidden:
                yield from self._node(index)
        outputs = [(at, self.true(name)) for at, name in enumerate(self.outputs) if name in self.live]
        places = tuple((Place(-1, at),) for at, _ in outputs)
        yield NodeFacts(OUTPUT, Op.OUTPUT, tuple(name for _, name in outputs)), places

    def _node(self, index: int) -> Iterator[tuple[NodeFacts, Places]]:
        node = self.nodes[index]
        names = [name for name in node.output if name in self.live and (name in self.read or name == node.output[0])]
        if not names:
            return
        scope = self.scope(node)
        if index in self.merged:
            one = self.merged[index]
            op = Op.NORM if one.norm else Op.ACT
            yield NodeFacts(names[0], op, (one.source,), scope, self.values.map(names[0])), (self._entries(one),)
            return
        data = self.data(node)
        places: Places = tuple((Place(index, slot),) for slot, name in enumerate(node.input) if name in self.live)
        inner = tuple(self.true(name) for name in captured(node) if name in self.live)
        data, places = (*data, *inner), (*places, *(() for _ in inner))
        if index in self.splits:
            members = self.splits[index]
            whole = f"{self.nodes[members[0]].output[0]}()"
            if index == members[0]:
                yield NodeFacts(whole, Op.OTHER, data, scope), (tuple(Place(member, 0) for member in members),)
            piece = members.index(index)
            yield NodeFacts(names[0], Op.OTHER, (whole,), scope, self.values.map(names[0]), piece=piece), ((),)
            return
        op = kind(node, data, self._axes(node), self.values)
        op = Op.OTHER if op is Op.CONV and self._blurs(node) else op
        if len(names) > 1:
            whole = f"{names[0]}()"
            yield NodeFacts(whole, op, data, scope), places
            for name in names:
                number = list(node.output).index(name) if node.op_type == "Split" else None
                yield NodeFacts(name, Op.OTHER, (whole,), scope, self.values.map(name), piece=number), ((),)
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
            if self.true(name) == one.source
        )

    def _scope(self, node: NodeProto) -> str:
        weight = self._weight_scope(node)
        if node.op_type in ("Conv", "ConvTranspose") and weight:
            return weight
        told = onnx_scopes.of_metadata(node)
        if told is None:
            told = onnx_scopes.of_name(node)
        if told is None and node.op_type == "Split" and (made := self.producer.get(node.input[0])) is not None:
            # Torch's exporter writes a `chunk` anew, and does not say where it was: beside what it divides.
            return self._scope(self.nodes[made])
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
        """The array behind a small weight, a Constant node or what was folded for this image, or None."""
        if name in self.weights:
            tensor = self.weights[name]
            return onnx.numpy_helper.to_array(tensor) if prod(tensor.dims) <= SMALL else None
        if name in self.values.constants:
            return self.values.constants[name]
        index = self.producer.get(name)
        if index is None or self.nodes[index].op_type != "Constant":
            return None
        for key, given in attributes(self.nodes[index]).items():
            if key == "value":
                return onnx.numpy_helper.to_array(given)
            if key in ("value_int", "value_ints", "value_float", "value_floats"):
                return np.asarray(given)
        return None

    def _blurs(self, node: NodeProto) -> bool:
        """Whether a convolution has one fixed filter for all channels, a weighted mean: a pool, and nothing learned."""
        tensor = self.weights.get(node.input[1])
        given = attributes(node)
        if tensor is None or given.get("group", 1) != tensor.dims[0] or tensor.dims[0] == 1 or len(node.input) > 2:
            return False
        if tensor.data_location == onnx.TensorProto.EXTERNAL or prod(tensor.dims[1:]) == 1:
            return False
        array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
        weighted = abs(array[0].sum() - 1) < SUM_OF_A_FILTER and np.count_nonzero(array[0]) > 1
        return bool(weighted and (array == array[:1]).all())

    def _axes(self, node: NodeProto) -> tuple[int, ...] | None:
        if not node.op_type.startswith("Reduce"):
            return None
        given = attributes(node)
        if "axes" in given:
            return tuple(int(axis) for axis in given["axes"])
        constant = self.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        return None if constant is None else tuple(int(axis) for axis in np.ravel(constant))

    def _quantised(self) -> tuple[dict[str, int], dict[str, str]]:
        """Each dequantised value's quantising node, and the value that went in, for pairs that nothing else sees."""
        readers: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for name in dict.fromkeys((*node.input, *captured(node))):
                readers[name].append(index)
        found: dict[str, int] = {}
        source: dict[str, str] = {}
        for index, node in enumerate(self.nodes):
            if node.op_type != "QuantizeLinear" or not self._by_constants(node) or node.output[0] in self.outputs:
                continue
            behind = [self.nodes[at] for at in readers[node.output[0]]]
            if all(one.op_type == "DequantizeLinear" and self._by_constants(one) for one in behind):
                found.update((one.output[0], index) for one in behind)
                source.update((one.output[0], node.input[0]) for one in behind)
        return found, source

    def _by_constants(self, node: NodeProto) -> bool:
        return node.input[0] in self.live and not any(name in self.live for name in node.input[1:])

    def _splits(self, outputs: frozenset[str]) -> dict[int, tuple[int, ...]]:
        """Slices that together cut one map into all its groups of channels: what a split was exported as."""
        cuts: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            if node.op_type == "Slice" and node.output[0] in self.live and (cut := self._cut(node)) is not None:
                cuts[self.true(node.input[0])].append((*cut, index))
        found: dict[int, tuple[int, ...]] = {}
        for name, listed in cuts.items():
            size = self.values.map(name)
            if size is None or len(listed) < 2:
                continue
            at = 0
            for start, end, _ in sorted(listed):
                at = min(end, size[0]) if start == at else -1
            if at == size[0]:
                members = tuple(sorted(index for *_, index in listed))
                found.update((index, members) for index in members)
        return found

    def _cut(self, node: NodeProto) -> tuple[int, int] | None:
        """The channels from and to which a Slice cuts, where it cuts nothing else."""
        given = attributes(node)
        if "starts" in given:
            parts: list[np.ndarray | None] = [np.asarray(given.get(key, ())) for key in ("starts", "ends", "axes")]
        else:
            parts = [self.constant(name) for name in node.input[1:]]
            if any(part is None or part.size != 1 for part in parts) or len(parts) < 3:
                return None
            if any(part is not None and int(np.ravel(part)[0]) != 1 for part in parts[3:]):
                return None
        if any(part is None or part.size != 1 for part in parts) or node.input[0] in self.values.last:
            return None
        start, end, axis = (int(np.ravel(part)[0]) for part in parts[:3] if part is not None)
        return (start, end) if axis in (1, -3) and 0 <= start < end else None


def input_shape(model: onnx.ModelProto) -> Shape | None:
    """(channels, height, width) as far as the file itself fixes all three."""
    dims = image_input(model).type.tensor_type.shape.dim
    sizes = [dim.dim_value for dim in dims]
    if len(sizes) != 4 or not all(size > 0 for size in sizes[1:]):
        return None
    return (sizes[3], sizes[1], sizes[2]) if takes_channels_last(model) else (sizes[1], sizes[2], sizes[3])
