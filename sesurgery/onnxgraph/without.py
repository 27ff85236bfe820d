"""Remove modules from an ONNX graph, to measure the cost of a block."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import NodeProto

from sesurgery.diagnostics import fail
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.scopes import scope_of


def without(model: onnx.ModelProto, modules: Iterable[str]) -> onnx.ModelProto:
    """A copy in which readers of a module's output read its input; unused nodes and weights are removed.

    Raises SE602 for a module that has no nodes in the file, or not one input and one output.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    flow = Dataflow(copy)
    for module in modules:
        given, made = ends(flow, module)
        for node in copy.graph.node:
            for place, name in enumerate(node.input):
                if name == made and not _inside(node, module):
                    node.input[place] = given
    _prune(copy)
    return copy


def ends(flow: Dataflow, module: str) -> tuple[str, str]:
    """The value that a module reads from outside, and the one that is read outside the module."""
    inside = [node for node in flow.nodes if _inside(node, module)]
    makes = {name for node in inside for name in node.output}
    reads = dict.fromkeys(name for node in inside for name in node.input if name not in makes)
    given = [name for name in reads if flow.is_data(name)]
    # The graph's own output counts as read.
    used = {name for node in flow.nodes if not _inside(node, module) for name in node.input}
    made = [name for name in makes if name in used]
    if len(given) != 1 or len(made) != 1:
        text = f"module {module!r} has {len(given)} inputs and {len(made)} outputs in the file; one of each is expected"
        raise fail("SE602", text, "its cost cannot be measured by removing it")
    return given[0], made[0]


def _inside(node: NodeProto, module: str) -> bool:
    scope = scope_of(node)
    return scope is not None and (scope == module or scope.startswith(f"{module}."))


def _prune(model: onnx.ModelProto) -> None:
    """Remove nodes and weights that no output depends on."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    del graph.node[:]
    graph.node.extend(nodes)
    for tensors in (graph.initializer, graph.value_info):
        left = [each for each in tensors if each.name not in needed]
        for each in left:
            tensors.remove(each)
