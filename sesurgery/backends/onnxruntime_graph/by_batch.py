"""One engine with several graphs, for batches of certain sizes and for any other. Weights that they have stand once."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

ANY = "any_batch"
CHOICE = "batch"
"""How the nodes begin that look at the batch and choose."""


def name_of(size: int) -> str:
    """What the graph for a batch of `size` is called."""
    return f"batch_{size}"


def when(name: str) -> str:
    """When a graph of that name runs; empty for one that only chooses, or of a model without a choice."""
    if name == ANY:
        return "for every other batch"
    found = re.fullmatch(r"batch_(\d+)", name)
    return f"for a batch of {found[1]}" if found else ""


def joined(special: Mapping[int, onnx.ModelProto], general: onnx.ModelProto) -> onnx.ModelProto:
    """A model that runs `special[n]` where the first dimension of the first input is n, and `general` elsewhere."""
    model = onnx.ModelProto()
    model.CopyFrom(general)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    first = next(value for value in graph.input if value.name not in weights)
    by_bytes: dict[tuple[int, bytes], list[str]] = {}
    for name, tensor in weights.items():
        by_bytes.setdefault(_bytes(tensor), []).append(name)
    shared = {ANY: {name: name for name in weights}}
    taken: set[str] = set()
    for size, part in special.items():
        known = shared[name_of(size)] = {}
        for tensor in part.graph.initializer:
            if not (names := by_bytes.get(_bytes(tensor))):
                continue
            # Some graphs have weights in other shapes, and take their own view of them where another one came first.
            name = next((name for name in names if weights[name].dims == tensor.dims), names[0])
            known[tensor.name] = name
            if name not in taken:
                taken.add(name)
                weights[name].dims[:] = tensor.dims
    branches = {ANY: _branch(general.graph, ANY, shared[ANY], weights)}
    for size, part in special.items():
        branches[name_of(size)] = _branch(part.graph, name_of(size), shared[name_of(size)], weights)
    del graph.node[:]
    graph.initializer.append(numpy_helper.from_array(np.array(0), f"{CHOICE}/axis"))
    shape, batch = f"{CHOICE}/shape", f"{CHOICE}/size"
    graph.node.append(helper.make_node("Shape", [first.name], [shape], name=f"{CHOICE}/Shape"))
    graph.node.append(helper.make_node("Gather", [shape, f"{CHOICE}/axis"], [batch], name=f"{CHOICE}/Gather"))
    chosen = branches[ANY]
    for size in reversed(special):
        asked = f"{CHOICE}/{size}"
        graph.initializer.append(numpy_helper.from_array(np.array(size), f"{asked}/size"))
        graph.node.append(
            helper.make_node("Equal", [batch, f"{asked}/size"], [f"{asked}/asked"], name=f"{asked}/Equal")
        )
        chosen = _choice(f"{asked}/asked", f"{asked}/If", branches[name_of(size)], chosen)
    (node,) = chosen.node
    # The outermost choice is the model's own.
    node.output[:] = [value.name for value in graph.output]
    graph.node.append(node)
    del graph.value_info[:]
    domains = {entry.domain for entry in model.opset_import}
    for part in special.values():
        model.opset_import.extend(entry for entry in part.opset_import if entry.domain not in domains)
        domains |= {entry.domain for entry in part.opset_import}
    return model


def _choice(asked: str, name: str, one: onnx.GraphProto, other: onnx.GraphProto) -> onnx.GraphProto:
    """A graph that runs the one where `asked` holds, else the other."""
    graph = onnx.GraphProto()
    graph.name = name
    for value in other.output:
        result = graph.output.add()
        result.CopyFrom(value)
        result.name = f"{name}/{value.name}"
    outputs = [value.name for value in graph.output]
    graph.node.append(helper.make_node("If", [asked], outputs, name=name, then_branch=one, else_branch=other))
    return graph


def _branch(
    graph: onnx.GraphProto, name: str, shared: Mapping[str, str], weights: Mapping[str, onnx.TensorProto]
) -> onnx.GraphProto:
    """A graph's nodes and those weights that it does not share, with names of their own; inputs come from around it."""
    branch = onnx.GraphProto()
    branch.name = name
    own = {value: f"{name}/{value}" for node in graph.node for value in node.output if value}
    views: list[NodeProto] = []
    for tensor in graph.initializer:
        if tensor.name not in shared:
            own[tensor.name] = f"{name}/{tensor.name}"
            kept = branch.initializer.add()
            kept.CopyFrom(tensor)
            kept.name = own[tensor.name]
        elif weights[shared[tensor.name]].dims != tensor.dims:
            own[tensor.name] = view = f"{name}/{tensor.name}"
            shape = numpy_helper.from_array(np.array(tensor.dims, np.int64), f"{view}_shape")
            branch.initializer.append(shape)
            views.append(helper.make_node("Reshape", [shared[tensor.name], shape.name], [view], name=f"{view}_Reshape"))
    branch.node.extend([*views, *graph.node])
    for node in branch.node[len(views) :]:
        # Names may be left out, but two nodes may not have the same.
        node.name = f"{name}/{node.name}" if node.name else ""
        node.input[:] = [own.get(value, shared.get(value, value)) for value in node.input]
        node.output[:] = [own.get(value, value) for value in node.output]
    for value in graph.output:
        result = branch.output.add()
        result.CopyFrom(value)
        result.name = own[value.name]
    return branch


def _bytes(tensor: onnx.TensorProto) -> tuple[int, bytes]:
    return tensor.data_type, numpy_helper.to_array(tensor).tobytes()
