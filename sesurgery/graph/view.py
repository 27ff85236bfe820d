"""The neutral graph of a network that planning works on: typed nodes, their readers, scopes and shapes.

Both surgeons make this graph, one from PyTorch FX and one from ONNX, so a placement is written once. Tests and people
read and write its text form (`str(view)`, `GraphView.parse`):

    x = input() : 3x32x32
    conv1 = conv(x) [3x3 s1 p1 3->16] @conv1 : 16x32x32
    relu = act(conv1) @relu : 16x32x32
"""

from __future__ import annotations

import enum
import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class Op(enum.Enum):
    """The kinds of nodes that planning distinguishes."""

    INPUT = "input"
    CONV = "conv"
    LINEAR = "linear"
    NORM = "norm"
    ACT = "act"
    ADD = "add"
    MUL = "mul"
    CONCAT = "concat"
    POOL = "pool"
    GLOBAL_POOL = "global_pool"
    RESHAPE = "reshape"
    PASS = "pass"  # the value itself when evaluating: identity, dropout, drop-path
    SIZE = "size"  # a number, a size, a type or a device that is read off a value: it depends on no pixel
    OTHER = "other"
    OUTPUT = "output"


@dataclass(frozen=True)
class ConvFacts:
    """A convolution's geometry; its axes are (height, width), or (time, height, width)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    in_channels: int
    out_channels: int

    def __str__(self) -> str:
        def short(value: tuple[int, ...]) -> str:
            return str(value[0]) if len(set(value)) == 1 else "x".join(map(str, value))

        parts = ["x".join(map(str, self.kernel)), f"s{short(self.stride)}", f"p{short(self.padding)}"]
        if set(self.dilation) != {1}:
            parts.append(f"d{short(self.dilation)}")
        if self.groups != 1:
            parts.append(f"g{self.groups}")
        return " ".join([*parts, f"{self.in_channels}->{self.out_channels}"])

    @classmethod
    def parse(cls, text: str) -> ConvFacts:
        """The inverse of `str`."""

        kernel, *rest, channels = text.split()
        axes = kernel.count("x") + 1

        def each(value: str) -> tuple[int, ...]:
            sizes = tuple(map(int, value.split("x")))
            return sizes * axes if len(sizes) == 1 else sizes

        given = {part[0]: part[1:] for part in rest}
        before, after = channels.split("->")
        return cls(
            kernel=each(kernel),
            stride=each(given.get("s", "1")),
            padding=each(given.get("p", "0")),
            dilation=each(given.get("d", "1")),
            groups=int(given.get("g", "1")),
            in_channels=int(before),
            out_channels=int(after),
        )


@dataclass(frozen=True)
class Use:
    """One use of a value: the node that reads it, and the number of the input."""

    user: str
    slot: int


Shape = tuple[int, ...]
"""(channels, height, width) of a map, or (channels, time, height, width)."""


def is_one_pixel(shape: Shape) -> bool:
    """Whether a map has one position alone."""
    return all(size == 1 for size in shape[1:])


@dataclass(frozen=True, eq=False)
class Node:
    """A value and the operation that computes it. `shape` is a map's, None if it is none."""

    name: str
    op: Op
    inputs: tuple[Node, ...]
    uses: tuple[Use, ...]
    readings: tuple[Use, ...]
    """Its uses but those that only take a size of it."""
    scope: str
    shape: Shape | None
    conv: ConvFacts | None
    piece: int | None
    """Its number among the values that its only input was split into; None if it is no such value."""
    index: int
    """Place in topological order."""
    constant: bool
    """Whether the value is computed only from parameters and sizes, not from the input's pixels."""

    def __str__(self) -> str:
        line = f"{self.name} = {self.op.value}({', '.join(value.name for value in self.inputs)})"
        if self.conv:
            line += f" [{self.conv}]"
        if self.piece is not None:
            line += f" [piece {self.piece}]"
        if self.scope:
            line += f" @{self.scope}"
        if self.shape:
            line += " : " + "x".join(str(size) for size in self.shape)
        return line


@dataclass(frozen=True)
class NodeFacts:
    """A node as a surgeon describes it, in topological order; `inputs` are names of earlier nodes."""

    name: str
    op: Op
    inputs: tuple[str, ...] = ()
    scope: str = ""
    shape: Shape | None = None
    conv: ConvFacts | None = None
    piece: int | None = None


class GraphView:
    """An immutable graph of `Node`s; iterates in topological order and answers `view["name"]`."""

    def __init__(self, facts: Iterable[NodeFacts]) -> None:
        """Raises ValueError if a name is used twice or an input is not an earlier node."""
        listed = list(facts)
        uses: dict[str, list[Use]] = {}
        for fact in listed:
            if fact.name in uses:
                raise ValueError(f"two nodes are called {fact.name!r}")
            for slot, name in enumerate(fact.inputs):
                if name not in uses:
                    raise ValueError(f"{fact.name!r} reads {name!r}, which is not an earlier node")
                uses[name].append(Use(fact.name, slot))
            uses[fact.name] = []
        self._derived: dict[object, Any] = {}
        self._nodes: dict[str, Node] = {}
        sizes = {fact.name for fact in listed if fact.op is Op.SIZE}
        for index, fact in enumerate(listed):
            inputs = tuple(self._nodes[name] for name in fact.inputs)
            self._nodes[fact.name] = Node(
                name=fact.name,
                op=fact.op,
                inputs=inputs,
                uses=tuple(uses[fact.name]),
                readings=tuple(use for use in uses[fact.name] if use.user not in sizes),
                scope=fact.scope,
                shape=fact.shape,
                conv=fact.conv,
                piece=fact.piece,
                index=index,
                constant=fact.op is Op.SIZE or (fact.op is not Op.INPUT and all(source.constant for source in inputs)),
            )

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def __str__(self) -> str:
        return "\n".join(str(node) for node in self)

    def once(self, derive: Callable[[GraphView], T]) -> T:
        """What a function makes of this graph, worked out the first time that it is asked for."""
        if derive not in self._derived:
            self._derived[derive] = derive(self)
        found: T = self._derived[derive]
        return found

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the text form: views with the same digest have the same plan."""
        return hashlib.sha256(str(self).encode()).hexdigest()

    @functools.cached_property
    def scopes(self) -> tuple[str, ...]:
        """Every scope and every prefix of one, in order of first appearance."""
        seen: dict[str, None] = {}
        for node in self:
            parts = node.scope.split(".") if node.scope else []
            for depth in range(1, len(parts) + 1):
                seen.setdefault(".".join(parts[:depth]))
        return tuple(seen)

    @classmethod
    def parse(cls, text: str) -> GraphView:
        """The inverse of `str`, for names without blanks, commas and `#`; blank lines and `#` comments are skipped.

        Raises ValueError with the line's number.
        """
        facts = []
        for number, raw in enumerate(text.splitlines(), start=1):
            line = raw.partition("#")[0].strip()
            if not line:
                continue
            match = _LINE.fullmatch(line)
            if match is None:
                raise ValueError(f"line {number} is not 'name = op(inputs) [facts] @scope : CxHxW': {line!r}")
            shape = tuple(int(size) for size in match["shape"].split("x")) if match["shape"] else None
            piece = int(match["facts"].split()[1]) if (match["facts"] or "").startswith("piece ") else None
            facts.append(
                NodeFacts(
                    name=match["name"],
                    op=Op(match["op"]),
                    inputs=tuple(name.strip() for name in match["inputs"].split(",") if name.strip()),
                    scope=match["scope"] or "",
                    shape=shape,
                    conv=ConvFacts.parse(match["facts"]) if match["facts"] and piece is None else None,
                    piece=piece,
                )
            )
        return cls(facts)


_LINE = re.compile(
    # Lazy and not `[^)]*`: a name may end in brackets, as those of nodes with several outputs do.
    r"(?P<name>\S+) = (?P<op>\w+)\((?P<inputs>.*?)\)"
    r"(?: \[(?P<facts>[^\]]+)\])?(?: @(?P<scope>\S+))?(?: : (?P<shape>\d+(?:x\d+){2,3}))?"
)
