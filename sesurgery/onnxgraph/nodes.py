"""Attributes, subgraphs and captured values of an ONNX node, and unused names."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import NodeProto

ONNX_DOMAINS = ("", "ai.onnx")
"""The two names of the domain of ONNX's own operators."""


def attributes(node: NodeProto) -> dict[str, Any]:
    """The node's attributes by name, as Python values."""
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute if not item.ref_attr_name}


def subgraphs(node: NodeProto) -> tuple[onnx.GraphProto, ...]:
    """The subgraphs of a node: the branches of an If, the body of a Loop or a Scan."""
    return tuple(
        graph
        for item in node.attribute
        for graph in ((item.g,) if item.type == onnx.AttributeProto.GRAPH else tuple(item.graphs))
    )


def captured(node: NodeProto) -> tuple[str, ...]:
    """The names that a node's subgraphs read from the graph around them."""
    found: dict[str, None] = {}
    for graph in subgraphs(node):
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        for inner in graph.node:
            found.update((name, None) for name in (*inner.input, *captured(inner)) if name and name not in own)
            own.update(inner.output)
        found.update((value.name, None) for value in graph.output if value.name not in own)
    return tuple(found)


def unique(name: str, taken: set[str]) -> str:
    """`name`, with a number appended if it is taken; adds the result to `taken`."""
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a unique name: ONNX Runtime rejects some files with duplicates, and edits are named by nodes."""
    taken: set[str] = set()
    for node in graph.node:
        if node.name:
            name = unique(node.name, taken)
            if name != node.name:
                node.name = name
