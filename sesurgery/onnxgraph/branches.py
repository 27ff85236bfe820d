"""The graphs of an ONNX model: the one it begins with, and those that its `If` nodes choose between."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, NodeProto


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and all within it, the outermost first."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = (attribute.g,) if attribute.type == AttributeProto.GRAPH else attribute.graphs
            for branch in inner:
                yield from graphs(branch)


def nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of all within it; an `If` stands before what it chooses between."""
    for each in graphs(graph):
        yield from each.node
