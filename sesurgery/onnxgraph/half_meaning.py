"""Compute an fp16 file as fp16 on a processor without fp16.

ONNX Runtime's CPU provider computes fp16 in fp32. Even without any rewriting it skips the rounding between two such
nodes, so a value that overflows fp16 does not overflow there. This module writes the file in fp32 with its roundings as
nodes: for y = x (2^13 + 1), the result y - (y - x) keeps the upper 11 bits of x (Dekker, Numerische Mathematik 18,
1971). Values that would round beyond 65504 are divided by zero. Values below fp16's normal range keep 11 bits.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from sesurgery.onnxgraph.inference import inferred

SPLIT = 2.0**13 + 1
BEYOND = 65520.0
"""Values from here on round to infinity."""
HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT


def in_single(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in fp32 that rounds every fp16 value; the model itself if it has none."""
    typed = inferred(model, strict=False)
    known = (*typed.input, *typed.value_info, *typed.output)
    halves = {value.name for value in known if value.type.tensor_type.elem_type == HALF}
    if not halves and not any(tensor.data_type == HALF for tensor in model.graph.initializer):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for tensor in graph.initializer:
        _widen(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == HALF:
            value.type.tensor_type.elem_type = SINGLE
    for name, number in (("split", SPLIT), ("beyond", BEYOND), ("nought", 0.0)):
        graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), f"half:{name}"))
    nodes = [new for node in graph.node for new in _rounding(node, halves)]
    made = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(made)
    return copy


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == HALF:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _rounding(node: NodeProto, halves: set[str]) -> list[NodeProto]:
    """A node in fp32, and nodes that round its fp16 outputs."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == HALF:
            attribute.i = SINGLE
        elif attribute.HasField("t"):
            _widen(attribute.t)
    nodes = [node]
    for place, name in enumerate(node.output):
        if name in halves:
            exact = node.output[place] = f"{name}:exact"
            nodes += [
                helper.make_node("Mul", [exact, "half:split"], [f"{name}:much"]),
                helper.make_node("Sub", [f"{name}:much", exact], [f"{name}:rest"]),
                helper.make_node("Sub", [f"{name}:much", f"{name}:rest"], [f"{name}:upper"]),
                helper.make_node("Abs", [exact], [f"{name}:size"]),
                helper.make_node("Less", [f"{name}:size", "half:beyond"], [f"{name}:within"]),
                helper.make_node("Div", [exact, "half:nought"], [f"{name}:infinite"]),
                helper.make_node("Where", [f"{name}:within", f"{name}:upper", f"{name}:infinite"], [name]),
            ]
    return nodes
