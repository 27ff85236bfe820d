"""Scaling by a gate in ONNX Runtime's blocked layout, for batches of one size.

On the CPU its optimiser gives convolutions, pools and sums of equal shapes operators that keep maps in blocks of 8 or
16 channels (the domain com.microsoft.nchwc). For a product of a map and a gate it has none: the map is copied to NCHW,
scaled, added to the shortcut, rectified, and copied back, and what was the convolution's epilogue is three operators.

Scaling a map by one number a channel is a convolution, though: 1x1, a group for each channel, with the gate as weights.
In blocks those weights lie in memory as the gate does, and the operator takes them from any tensor. The optimiser does
not, it asks for constants. So it is given constants as stand-ins, fuses sum and ReLU into those convolutions as it does
everywhere, and afterwards the gate takes the stand-in's place.

Weights are the same for all samples of a batch and gates are not. In blocks, though, a batch of maps lies in memory as
one map of all their channels does, and that is how it is scaled, in a graph for batches of one size. For single
samples `folded` goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from sesurgery.backends.onnxruntime_graph import folded
from sesurgery.lowering import squeezes as _gates
from sesurgery.lowering.rewriting import Rewrite, obstacle
from sesurgery.onnxgraph.batch import with_batch

BLOCKED = "com.microsoft.nchwc"
FIRST = 1001.0
"""The value that fills the first stand-in; each further one has the next number, so its content identifies it."""
Optimise = Callable[[onnx.ModelProto], onnx.ModelProto]


@dataclass(frozen=True)
class Scaling:
    """A product of a map and a gate (N, C, 1, 1)."""

    node: NodeProto
    map: str
    gate: str
    channels: int
    positions: int | None
    """Height times width of the map, where they are known."""


def optimised(model: onnx.ModelProto, optimise: Optimise, size: int) -> onnx.ModelProto | str:
    """The optimised graph of `model` for batches of `size`, its gates' scalings in blocks; or why it cannot be."""
    if (reason := obstacle(model)) is not None:
        return reason
    fixed = with_batch(model, size)
    left_out: set[str] = set()
    while True:
        rewrite = Rewrite(fixed)
        found = [scaling for scaling in scalings(rewrite, size) if scaling.node.output[0] not in left_out]
        if not found:
            return "no gate scales a map that the optimiser keeps in blocks"
        whole = optimise(_with_stand_ins(found, rewrite, size))
        misses = _place(whole.graph, found, len(fixed.graph.output), size)
        if not misses:
            return whole
        # Those whose map is not in blocks stay as they were.
        left_out |= misses


def scalings(rewrite: Rewrite, size: int) -> Iterable[Scaling]:
    """All products of a map and a gate of `size` samples, in the order of the graph."""
    flow = rewrite.flow
    for node, name, gate in _gates.scalings(flow):
        shape = flow.shape(name) or ()
        channels = shape[1] if len(shape) == 4 else None
        if (
            isinstance(channels, int)
            and channels > 1
            and flow.shape(gate) == (size, channels, 1, 1)
            and flow.dtype(gate) == TensorProto.FLOAT
            and gate not in rewrite.outputs
        ):
            height, width = shape[2:]
            positions = height * width if isinstance(height, int) and isinstance(width, int) else None
            yield Scaling(node, name, gate, channels, positions)


def _with_stand_ins(found: Iterable[Scaling], rewrite: Rewrite, size: int) -> onnx.ModelProto:
    gates = {scaling.gate: scaling.channels for scaling in found}
    for number, scaling in enumerate(found):
        node, channels = scaling.node, scaling.channels
        weight = rewrite.weight(f"{scaling.gate}_stand_in", np.full((channels, 1, 1, 1), FIRST + number, np.float32))
        made = rewrite.node(node, "Conv", [scaling.map, weight], node.output[0], group=channels, kernel_shape=[1, 1])
        rewrite.replace(node, [made])
    # Nobody reads the gates now; as outputs they stay.
    rewrite.outputs |= set(gates)
    model = rewrite.finish()
    model.graph.output.extend(
        helper.make_tensor_value_info(gate, TensorProto.FLOAT, [size, channels, 1, 1])
        for gate, channels in gates.items()
    )
    return model


def _place(graph: onnx.GraphProto, found: Iterable[Scaling], outputs: int, size: int) -> set[str]:
    """Put the gates in their stand-ins' places; gives the outputs of the scalings where that is not possible."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    numbers = {scaling.node.output[0]: FIRST + number for number, scaling in enumerate(found)}
    by_number = {
        number: node
        for node in graph.node
        if node.op_type == "Conv" and node.domain == BLOCKED and (number := _number(weights.get(node.input[1])))
    }
    misses = {name for name, number in numbers.items() if number not in by_number}
    if misses:
        return misses
    sizes, gates = {}, {}
    for scaling in found:
        node = by_number[numbers[scaling.node.output[0]]]
        if scaling.positions is not None:
            sizes[node.output[0]] = scaling.positions
        # A gate may scale several maps.
        if scaling.gate not in gates:
            gates[scaling.gate] = _in_blocks(graph, scaling.gate)
        gate = gates[scaling.gate]
        shape, weight = f"{node.name}_gate_shape", f"{node.name}_gate"
        channels = weights[node.input[1]].dims[0]
        if gate == scaling.gate and channels > scaling.channels:
            # It ends with an operator that there is not in blocks: nothing has filled it up.
            gate = _filled_up(graph, gate, channels - scaling.channels, weight)
        graph.initializer.append(numpy_helper.from_array(np.array([size * channels, 1, 1, 1]), shape))
        graph.node.append(helper.make_node("Reshape", [gate, shape], [weight], name=f"{weight}_Reshape"))
        graph.initializer.remove(weights[node.input[1]])
        node.input[1] = weight
        if size > 1:
            _as_one_map(graph, node, channels, size)
    del graph.output[outputs:]
    if size == 1:
        folded.fold(graph, sizes, BLOCKED)
    _sort(graph)
    del graph.value_info[:]
    return set()


def _as_one_map(graph: onnx.GraphProto, node: NodeProto, channels: int, size: int) -> None:
    """Let a scaling read, add and write a batch of maps as one map of all their channels."""
    one, batch = f"{node.name}_one_map", f"{node.name}_batch"
    graph.initializer.append(numpy_helper.from_array(np.array([1, size * channels, 0, 0]), one))
    graph.initializer.append(numpy_helper.from_array(np.array([size, channels, 0, 0]), batch))
    for index, name in enumerate(node.input):
        # The map, and what is added; between them are the gate and no bias.
        if index in (0, 3):
            seen = f"{node.name}_{index}"
            graph.node.append(helper.make_node("Reshape", [name, one], [seen], name=f"{seen}_Reshape"))
            node.input[index] = seen
    written, node.output[0] = node.output[0], f"{node.name}_maps"
    graph.node.append(helper.make_node("Reshape", [node.output[0], batch], [written], name=f"{batch}_Reshape"))
    (group,) = [attribute for attribute in node.attribute if attribute.name == "group"]
    group.i = size * channels


def _number(weight: TensorProto | None) -> float | None:
    """Which stand-in a weight is: in blocks, its channels are filled up with zeros."""
    if weight is None or weight.data_type != TensorProto.FLOAT or tuple(weight.dims[1:]) != (1, 1, 1):
        return None
    array = numpy_helper.to_array(weight).ravel()
    return float(array[0]) if set(array.tolist()) <= {float(array[0]), 0.0} else None


def _in_blocks(graph: onnx.GraphProto, gate: str) -> str:
    """The gate in blocks, which for one position is the order that it has anyway, filled up with what is not used."""
    for node in graph.node:
        if node.op_type == "ReorderOutput" and node.output[0] == gate:
            blocks = str(node.input[0])
            if not any(gate in other.input for other in graph.node):
                graph.node.remove(node)
            return blocks
    return gate


def _filled_up(graph: onnx.GraphProto, gate: str, missing: int, stem: str) -> str:
    """The gate (1, C, 1, 1) with so many zeros behind it."""
    pads, filled = f"{stem}_pads", f"{stem}_filled"
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0, 0, 0, missing, 0, 0]), pads))
    graph.node.append(helper.make_node("Pad", [gate, pads], [filled], name=f"{stem}_Pad"))
    return filled


def _sort(graph: onnx.GraphProto) -> None:
    """Put every node after those whose values it reads."""
    known = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    left, ordered = list(graph.node), []
    while left:
        ready = []
        for node in left:
            if known.issuperset(node.input):
                ready.append(node)
                known.update(node.output)
        if not ready:
            raise ValueError("the graph has a cycle")
        ordered.extend(ready)
        left = [node for node in left if not known.issuperset(node.output)]
    del graph.node[:]
    graph.node.extend(ordered)
