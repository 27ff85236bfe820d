"""The output of named modules, for users who know the network and want blocks exactly there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic_core import PydanticCustomError

from sesurgery.graph import GraphView, Node, Op
from sesurgery.placements.base import Example, Match, Miss, Placement, Unknown
from sesurgery.spec.patterns import require_pattern


@dataclass(frozen=True)
class Module(Placement):
    """After every module whose whole path matches `names` (globs) or `regex`; its children need not match.

    `file` holds names, one a line; they are read with the spec, and are `names` afterwards.
    """

    names: str | tuple[str, ...] = ()
    regex: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if not self.names and self.regex is None and self.file is None:
            raise PydanticCustomError("incomplete", "no module is named", {"hint": "give 'names', 'regex' or 'file'"})
        if self.regex is not None:
            require_pattern(self.regex, "regex")

    @property
    def globs(self) -> tuple[str, ...]:
        return (self.names,) if isinstance(self.names, str) else self.names

    def unknown(self, graph: GraphView) -> Iterator[Unknown]:
        for index, glob in enumerate(self.globs):
            if not any(fnmatchcase(scope, glob) for scope in graph.scopes):
                yield Unknown(("names", index), glob)
        if self.regex is not None and not any(re.fullmatch(self.regex, scope) for scope in graph.scopes):
            yield Unknown(("regex",), self.regex)

    def _wanted(self, scope: str) -> bool:
        named = any(fnmatchcase(scope, glob) for glob in self.globs)
        return named or (self.regex is not None and re.fullmatch(self.regex, scope) is not None)

    def select(self, graph: GraphView) -> Iterator[Match | Miss]:
        wanted = [scope for scope in graph.scopes if self._wanted(scope)]
        outputs = _outputs(graph)
        for scope in wanted:
            found = outputs[scope]
            if len(found) != 1:
                text = f"{len(found)} of its values are read outside it, not one"
                yield Miss("many_outputs", scope, text, str(len(found)))
                continue
            (value,) = found
            if value.shape is None:
                yield Miss("no_map", scope, "its output is not a feature map of channels, height and width")
                continue
            outside = tuple(use for use in value.uses if not _inside(graph[use.user].scope, scope))
            yield Match(value, outside, scope)


def _outputs(graph: GraphView) -> dict[str, list[Node]]:
    """For every scope, the values made inside it that are read outside it."""
    outputs: dict[str, list[Node]] = {scope: [] for scope in graph.scopes}
    for node in graph:
        if node.op in (Op.INPUT, Op.OUTPUT, Op.SIZE) or not node.scope:
            continue
        readers = [graph[use.user].scope for use in node.readings]
        parts = node.scope.split(".")
        for depth in range(1, len(parts) + 1):
            scope = ".".join(parts[:depth])
            if any(not _inside(reader, scope) for reader in readers):
                outputs[scope].append(node)
    return outputs


def _inside(scope: str, module: str) -> bool:
    return scope == module or scope.startswith(module + ".")


_TWO_UNITS = """
x = input() : 3x32x32
conv1 = conv(x) [3x3 s1 p1 3->16] @stem.conv : 16x32x32
relu1 = act(conv1) @stem.relu : 16x32x32
conv2 = conv(relu1) [3x3 s1 p1 16->16] @body.conv : 16x32x32
add = add(conv2, relu1) @body : 16x32x32
pool = global_pool(add) @pool : 16x1x1
fc = linear(pool) @fc
out = output(fc)
"""

EXAMPLES = (
    Example("a leaf module", Module("stem.conv"), _TWO_UNITS, {"conv1": ("relu1",)}),
    Example(
        "a module of several operations: every reader outside it is rerouted",
        Module("stem"),
        _TWO_UNITS,
        {"relu1": ("conv2", "add")},
    ),
    Example("several names", Module(("stem", "body")), _TWO_UNITS, {"relu1": ("conv2", "add"), "add": ("pool",)}),
    Example(
        "a regular expression over whole paths",
        Module(regex=r"(stem|body)\.conv"),
        _TWO_UNITS,
        {"conv1": ("relu1",), "conv2": ("add",)},
    ),
    Example("an output that is not a feature map", Module("fc"), _TWO_UNITS, {}, ("not a feature map",)),
)
