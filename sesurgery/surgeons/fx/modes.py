"""One operation in the two graphs of a network that runs another one in training than in evaluation."""

from __future__ import annotations

from collections import Counter

from torch import fx


def counterparts(graph: fx.Graph, other: fx.Graph) -> dict[str, fx.Node]:
    """For each node name of `graph` the node of `other` that does the same thing: the n-th of its kind in its scope."""
    places = dict(_places(other))
    return {node.name: places[place] for place, node in _places(graph) if place in places}


def _places(graph: fx.Graph) -> list[tuple[tuple[object, ...], fx.Node]]:
    counts: Counter[tuple[object, ...]] = Counter()
    found: list[tuple[tuple[object, ...], fx.Node]] = []
    for node in graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        kind = (node.op, node.target, tuple(entry[0] for entry in stack.values())[-1:])
        found.append(((*kind, counts[kind]), node))
        counts[kind] += 1
    return found
