"""The graphs of an ONNX model: the main graph and the branches of its `If` nodes."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, NodeProto


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and its subgraphs, the outermost first."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = (attribute.g,) if attribute.type == AttributeProto.GRAPH else attribute.graphs
            for branch in inner:
                yield from graphs(branch)


def nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of its subgraphs; an `If` comes before its branches."""
    for each in graphs(graph):
        yield from each.node
