"""One engine with two graphs: one for a single sample, and one for any batch. Weights that both have stand once."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

ONE, ANY = "one_sample", "any_batch"


def joined(single: onnx.ModelProto, general: onnx.ModelProto) -> onnx.ModelProto:
    """A model that runs `single` where the first dimension of the first input is 1, and `general` elsewhere."""
    model = onnx.ModelProto()
    model.CopyFrom(general)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    by_content = {_content(tensor): name for name, tensor in weights.items()}
    shared = {
        tensor.name: name
        for tensor in single.graph.initializer
        if (name := by_content.get(_content(tensor))) is not None
    }
    # Those that fold gates have their weights in another shape: it stays so, and the other graph, in which this costs
    # nothing that counts, takes its own view of them.
    by_bytes = {content[::2]: name for content, name in by_content.items() if name not in shared.values()}
    views: dict[str, list[int]] = {}
    for tensor in single.graph.initializer:
        if tensor.name not in shared and (name := by_bytes.pop(_content(tensor)[::2], None)) is not None:
            views[name] = list(weights[name].dims)
            weights[name].dims[:] = tensor.dims
            shared[tensor.name] = name
    one, other = _branch(single.graph, ONE, shared), _branch(general.graph, ANY, {name: name for name in weights})
    for name, dims in views.items():
        shape, view = f"{ANY}/{name}_shape", f"{ANY}/{name}"
        graph.initializer.append(numpy_helper.from_array(np.array(dims), shape))
        for node in other.node:
            node.input[:] = [view if value == name else value for value in node.input]
        other.node.insert(0, helper.make_node("Reshape", [name, shape], [view], name=f"{view}_Reshape"))
    graph.initializer.extend(
        [numpy_helper.from_array(np.array(0), f"{ONE}/axis"), numpy_helper.from_array(np.array(1), f"{ONE}/size")]
    )
    first = next(value for value in graph.input if value.name not in weights)
    del graph.node[:]
    graph.node.extend(
        [
            helper.make_node("Shape", [first.name], [f"{ONE}/shape"], name=f"{ONE}/Shape"),
            helper.make_node("Gather", [f"{ONE}/shape", f"{ONE}/axis"], [f"{ONE}/batch"], name=f"{ONE}/Gather"),
            helper.make_node("Equal", [f"{ONE}/batch", f"{ONE}/size"], [f"{ONE}/asked"], name=f"{ONE}/Equal"),
            helper.make_node(
                "If",
                [f"{ONE}/asked"],
                [value.name for value in graph.output],
                name="by_batch",
                then_branch=one,
                else_branch=other,
            ),
        ]
    )
    del graph.value_info[:]
    known = {entry.domain for entry in model.opset_import}
    model.opset_import.extend(entry for entry in single.opset_import if entry.domain not in known)
    return model


def _branch(graph: onnx.GraphProto, name: str, shared: dict[str, str]) -> onnx.GraphProto:
    """A graph's nodes and those weights that it does not share, with names of their own; inputs come from around it."""
    branch = onnx.GraphProto()
    branch.name = name
    branch.node.extend(graph.node)
    branch.initializer.extend(tensor for tensor in graph.initializer if tensor.name not in shared)
    own = {value: f"{name}/{value}" for node in graph.node for value in node.output if value}
    own |= {tensor.name: f"{name}/{tensor.name}" for tensor in branch.initializer}
    for tensor in branch.initializer:
        tensor.name = own[tensor.name]
    for node in branch.node:
        # Names may be left out, but two nodes may not have the same.
        node.name = f"{name}/{node.name}" if node.name else ""
        node.input[:] = [own.get(value, shared.get(value, value)) for value in node.input]
        node.output[:] = [own.get(value, value) for value in node.output]
    for value in graph.output:
        result = branch.output.add()
        result.CopyFrom(value)
        result.name = own[value.name]
    return branch


def _content(tensor: onnx.TensorProto) -> tuple[int, tuple[int, ...], bytes]:
    return tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes()
