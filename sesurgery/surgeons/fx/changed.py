"""A changed network: a graph module that is copied and pickled as it stands.

torch.fx pickles the code of a graph and traces it again when it is read, and that second drawing is another network:
`self.training` would be read once and dropout frozen, what the first tracing decided would be asked anew, and
`out += x` may become `out + x` or the reverse (pytorch#198077). Here the nodes themselves are written down.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import fx, nn
from torch._ops import OpOverload, OpOverloadPacket
from torch.fx.node import map_aggregate, map_arg

# What torch.fx makes of the graph by itself.
_DERIVED = ("_graph", "_code", "_lineno_map", "_prologue_start", "_tracer_cls", "_tracer_extras")


@dataclass(frozen=True)
class _Value:
    """Stands for the node of this number where an argument reads it."""

    number: int


@dataclass(frozen=True)
class _Named:
    """Stands for a function that pickle cannot name, though it can be found in a module under this path."""

    module: str
    path: str


@dataclass(frozen=True)
class _Line:
    """One node as plain data."""

    name: str
    op: str
    target: Any
    args: Any
    kwargs: Any
    annotation: Any
    meta: dict[str, Any]


class Changed(fx.GraphModule):
    """The graph module that surgery gives back."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Empty at first, so that whatever refers back to the network finds it."""
        state = {name: value for name, value in self.__dict__.items() if name not in _DERIVED}
        return _empty, (type(self).__name__,), {**state, "_lines": _written(self.graph)}

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        """The same in every protocol."""
        return self.__reduce__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        lines = state.pop("_lines")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.graph = _read(lines)

    def __deepcopy__(self, memo: dict[int, Any]) -> Changed:
        make, arguments, state = self.__reduce__()
        made: Changed = make(*arguments)
        memo[id(self)] = made
        made.__setstate__(copy.deepcopy(state, memo))
        return made


def _empty(name: str) -> Changed:
    return Changed(nn.Module(), fx.Graph(), class_name=name)


def _written(graph: fx.Graph) -> list[_Line]:
    numbers = {node: _Value(number) for number, node in enumerate(graph.nodes)}
    return [
        _Line(
            node.name,
            node.op,
            _named(node.target),
            map_arg(node.args, numbers.__getitem__),  # type: ignore[arg-type]
            map_arg(node.kwargs, numbers.__getitem__),  # type: ignore[arg-type]
            node.type,
            {**node.meta, **_scopes(node)},
        )
        for node in graph.nodes
    ]


def _scopes(node: fx.Node) -> dict[str, Any]:
    """The scopes of a node, each with a class that can be named: parametrised modules have one made for them."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        # An inserted block has none: torch works it out where it stands, but not over an empty one.
        return {}
    return {"nn_module_stack": {key: (path, _nameable(kind)) for key, (path, kind, *_) in stack.items()}}


def _nameable(kind: Any) -> Any:
    for base in getattr(kind, "__mro__", ()):
        with contextlib.suppress(ImportError, AttributeError):
            if _found(_Named(base.__module__, base.__qualname__)) is base:
                return base
    return nn.Module


def _named(target: Any) -> Any:
    if isinstance(target, OpOverload | OpOverloadPacket):
        return _Named("torch", f"ops.{target}")
    if callable(target) and "<locals>" in getattr(target, "__qualname__", ""):
        # Such as F.max_pool2d, which is made by a function that chooses between two.
        name = _Named(target.__module__, target.__name__)
        with contextlib.suppress(ImportError, AttributeError):
            return name if _found(name) is target else target
    return target


def _found(name: _Named) -> Any:
    return attrgetter(name.path)(importlib.import_module(name.module))


def _read(lines: Iterable[_Line]) -> fx.Graph:
    graph = fx.Graph()
    nodes: list[fx.Node] = []

    def value(item: Any) -> Any:
        return nodes[item.number] if isinstance(item, _Value) else item

    for line in lines:
        target = _found(line.target) if isinstance(line.target, _Named) else line.target
        args, kwargs = map_aggregate(line.args, value), map_aggregate(line.kwargs, value)
        node = graph.create_node(line.op, target, args, kwargs, line.name, line.annotation)
        node.meta.update(line.meta)
        nodes.append(node)
    return graph
