"""Which values of an ONNX file depend on its inputs, which its outputs depend on, and which nodes nobody reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from onnx import NodeProto

from sesurgery.onnxgraph.nodes import ONNX_DOMAINS, captured


def computed_from(nodes: Iterable[NodeProto], inputs: Iterable[str]) -> frozenset[str]:
    """Every value that is computed from what an input holds; its shape alone is not what it holds."""
    live = set(inputs)
    for node in nodes:
        if node.op_type in ("Shape", "Size") and node.domain in ONNX_DOMAINS:
            continue
        # A Reshape's or a Resize's target may come from a shape: that path is not data.
        if any(name in live for name in (*node.input, *captured(node))):
            live.update(name for name in node.output if name)
    return frozenset(live)


def reached(nodes: Sequence[NodeProto], inputs: Iterable[str], outputs: Iterable[str]) -> frozenset[str]:
    """Every value that an output of the file is computed from, and the inputs."""
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    found, pending = set(inputs), list(outputs)
    seen = set[int]()
    while pending:
        name = pending.pop()
        found.add(name)
        index = producer.get(name)
        if index is not None and index not in seen:
            seen.add(index)
            pending += [*nodes[index].input, *captured(nodes[index])]
    # An output beside one that is read belongs to a node that works.
    for index in seen:
        found.update(nodes[index].output)
    return frozenset(found)


def unread(nodes: Sequence[NodeProto], flowing: Set[str], outputs: Iterable[str]) -> tuple[int, ...]:
    """The nodes that compute from the input (`flowing`), and whose outputs nobody reads."""
    read = {name for node in nodes for name in (*node.input, *captured(node))} | set(outputs)
    return tuple(
        index
        for index, node in enumerate(nodes)
        if any(name in flowing for name in node.output) and read.isdisjoint(node.output)
    )
