"""A network that runs another graph in training than in evaluation, such as Inception with its auxiliary head.

The root of a network cannot be made a leaf. Where its own forward branches on `self.training`, both branches are traced
and kept, over the same modules; which one runs is decided when it runs, as before.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import fx, nn


class TwoFaced(nn.Module):
    """The modules of a network and two graphs over them, one for each mode."""

    def __init__(self, evaluating: fx.GraphModule, training: fx.GraphModule) -> None:
        super().__init__()
        for table in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            # One and the same tables: what is loaded, moved or replaced in the network is so in both graphs.
            shared = getattr(evaluating, table)
            self.__dict__[table] = shared
            training.__dict__[table] = shared
        # A tuple in the instance's own dictionary is not registered, so no name gets a prefix.
        self.__dict__["_faces"] = (evaluating, training)

    @property
    def faces(self) -> tuple[fx.GraphModule, fx.GraphModule]:
        """The graphs for evaluation and for training."""
        faces: tuple[fx.GraphModule, fx.GraphModule] = self.__dict__["_faces"]
        return faces

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph of the present mode."""
        return self.faces[self.training].forward(*args, **kwargs)


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
