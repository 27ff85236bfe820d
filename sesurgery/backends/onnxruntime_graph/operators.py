"""What an engine of ONNX Runtime runs: the operators of its optimised graph, or of each of its graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import GraphProto, NodeProto, TensorProto

from sesurgery.backends.inputs.onnx_file import word
from sesurgery.backends.kernels.operators import Graph, Operator
from sesurgery.backends.onnxruntime_graph.by_batch import ANY, when
from sesurgery.onnxgraph import branches as _branches

CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv")
INTEGERS = ("int8", "uint8")


def read(engine: Path, source: onnx.ModelProto | None = None) -> tuple[Graph, ...]:
    """The graphs of an engine, by the names of the file `source` that it was built from, where that is given."""
    model = onnx.load(engine, load_external_data=False)
    types = {
        tensor.name: TensorProto.DataType.Name(tensor.data_type)
        for graph in _branches.graphs(model.graph)
        for tensor in graph.initializer
    }
    made = {} if source is None else _made(source.graph)
    found = list(_branches.graphs(model.graph))
    if any(graph.name == ANY for graph in found):
        # What chooses between the others computes nothing.
        found = [graph for graph in found if when(graph.name)]
    return tuple(Graph(graph.name, when(graph.name), _operators(graph, types, made)) for graph in found)


def _operators(graph: GraphProto, types: Mapping[str, str], made: Mapping[str, str]) -> tuple[Operator, ...]:
    return tuple(
        Operator(node.name, _kind(node, types), _type(node, types), _nodes(node, graph.name, made))
        for node in graph.node
    )


def _kind(node: NodeProto, types: Mapping[str, str]) -> str:
    """`nchwc.Conv+Relu`: the last word of its domain, the operator, the activation that it carries out too."""
    activation = next((item.s.decode() for item in node.attribute if item.name == "activation"), "")
    domain = node.domain.rpartition(".")[2]
    computed = node.op_type in CONVOLUTIONS and _weight(node) not in types
    name = "+".join(filter(None, (node.op_type, activation)))
    return ".".join(filter(None, (domain, name))) + (" (computed weights)" if computed else "")


def _type(node: NodeProto, types: Mapping[str, str]) -> str | None:
    if node.op_type not in CONVOLUTIONS:
        return None
    dtype = types.get(_weight(node))
    found = None if dtype is None else word(dtype)
    return "int8" if found in INTEGERS else found


def _weight(node: NodeProto) -> str:
    return str(node.input[3 if node.op_type == "QLinearConv" else 1])


def _made(graph: GraphProto) -> dict[str, str]:
    """The node behind each name that the optimiser goes by: a node's own, or that of what it writes."""
    named = {node.name: node.name for node in graph.node}
    return {output: node.name for node in graph.node for output in node.output} | named


def _nodes(node: NodeProto, branch: str, made: Mapping[str, str]) -> tuple[str, ...]:
    given = [name.removeprefix(f"{branch}/") for name in (node.name, *node.output)]
    plain = [name.removeprefix("InsertedPrecisionFreeCast_").removesuffix("_nchwc") for name in given]
    return tuple(dict.fromkeys(made[name] for name in plain if name in made))
