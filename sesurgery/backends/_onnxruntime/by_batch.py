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
    renamed: dict[str, str] = {}
    for tensor in single.graph.initializer:
        name = by_content.get(_content(tensor))
        if name is None:
            kept = graph.initializer.add()
            kept.CopyFrom(tensor)
            kept.name = name = f"{ONE}/{tensor.name}"
        renamed[tensor.name] = name
    first = next(value for value in graph.input if value.name not in weights)
    branches = {ANY: _branch(general.graph, ANY, {}), ONE: _branch(single.graph, ONE, renamed)}
    graph.initializer.extend(
        [numpy_helper.from_array(np.array(0), f"{ONE}/axis"), numpy_helper.from_array(np.array(1), f"{ONE}/size")]
    )
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
                then_branch=branches[ONE],
                else_branch=branches[ANY],
            ),
        ]
    )
    del graph.value_info[:]
    known = {entry.domain for entry in model.opset_import}
    model.opset_import.extend(entry for entry in single.opset_import if entry.domain not in known)
    return model


def _branch(graph: onnx.GraphProto, name: str, renamed: dict[str, str]) -> onnx.GraphProto:
    """A graph's nodes with values of their own names; inputs and weights are those of the graph around it."""
    branch = onnx.GraphProto()
    branch.name = name
    branch.node.extend(graph.node)
    own = {value: f"{name}/{value}" for node in graph.node for value in node.output if value}
    for node in branch.node:
        node.name = f"{name}/{node.name}"
        node.input[:] = [own.get(value, renamed.get(value, value)) for value in node.input]
        node.output[:] = [own.get(value, value) for value in node.output]
    for value in graph.output:
        result = branch.output.add()
        result.CopyFrom(value)
        result.name = own[value.name]
    return branch


def _content(tensor: onnx.TensorProto) -> tuple[int, tuple[int, ...], bytes]:
    return tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes()
