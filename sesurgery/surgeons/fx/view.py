"""The picture of a network: its own forward's graph, or, where that cannot be traced, the graphs of its parts.

A part that cannot be traced is a leaf in the graph around it, and its own children are drawn each by itself, from what
they are called with while the whole runs on an example. So surgery also works inside a network whose forward depends on
data, and the parts that stay hidden are reported.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx, nn
from torch.fx.node import map_arg

from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.graph import GraphView, NodeFacts, Op
from sesurgery.surgeons.base import Leaf, Outline
from sesurgery.surgeons.fx import ops as fx_ops
from sesurgery.surgeons.fx.captured import Captured, capture
from sesurgery.surgeons.fx.hidden import counted
from sesurgery.surgeons.fx.inputs import Inputs, map_dims
from sesurgery.surgeons.fx.layout import channels_last
from sesurgery.surgeons.fx.shapes import measured
from sesurgery.surgeons.fx.traced import Trace, Way
from sesurgery.surgeons.fx.tracer import is_primitive
from sesurgery.surgeons.fx.tracing import KINDS, NOT_THE_SAME, trace_call


@dataclass(frozen=True)
class Frame:
    """One traced call: of the network itself (path "") or of a part, with the arguments it was traced for."""

    path: str
    traced: Trace
    inputs: Inputs

    def name(self, node: fx.Node) -> str:
        """What the node is called in the view."""
        return f"{self.path}/{node.name}" if self.path else node.name

    def absolute(self, path: str) -> str:
        """A module path of the frame as one of the network."""
        return f"{self.path}.{path}" if self.path and path else self.path or path


@dataclass(frozen=True)
class Drawing:
    """The frames of a network and their common view."""

    frames: tuple[Frame, ...]
    leaves: tuple[Leaf, ...]
    view: GraphView
    last: frozenset[str] = frozenset()
    """The maps whose channels are last; the view has their shapes as (channels, height, width) too."""

    @property
    def outline(self) -> Outline:
        return Outline(self.view, self.leaves)


def draw(network: nn.Module, inputs: Inputs, called: tuple[str, ...] = ()) -> Drawing:
    """Draw one call of a network, with the modules of `called` as leaves.

    Raises SE403 where neither its forward nor any part of it can be traced.
    """
    artist = _Artist(network, inputs, called)
    artist.frame("", network, inputs)
    if not artist.frames:
        raise artist.errors[0] if artist.errors else fail("SE403", f"{type(network).__name__}: {NOT_THE_SAME}")
    leaves = counted(network, artist.leaves, [frame.path for frame in artist.frames], lambda: artist.captured)
    view = GraphView(artist.facts())
    return Drawing(tuple(artist.frames), tuple(leaves), view, frozenset(artist.last))


class _Artist:
    """Draws a network frame by frame."""

    def __init__(self, network: nn.Module, inputs: Inputs, called: tuple[str, ...]) -> None:
        self.network = network
        self.called = called
        self.inputs = inputs
        self.frames: list[Frame] = []
        self.leaves: list[Leaf] = []
        self.errors: list[SesurgeryError] = []
        self.last: set[str] = set()
        self._captured: dict[str, Captured] | None = None

    def frame(self, path: str, module: nn.Module, inputs: Inputs) -> None:
        """Draw a module's call, or that of its children where it cannot be traced."""
        if path in self.called:
            self.leaves.append(Leaf(path, NOT_THE_SAME, KINDS[NOT_THE_SAME]))
            self._children(path, module)
            return
        inner = f"{path}." if path else ""
        called = [name.removeprefix(inner) for name in self.called if name.startswith(inner)]
        try:
            traced = trace_call(module, inputs, Way(branches_as_in_eval=True, called=called))
        except SesurgeryError as error:
            self.errors.append(error)
            self.leaves.append(Leaf(path, error.diagnostics[0].message))
            self._children(path, module)
            return
        frame = Frame(path, traced, inputs)
        self.frames.append(frame)
        met = {node.target for node in traced.graph.nodes if node.op == "call_module"}
        for leaf in (leaf for leaf in traced.leaves if leaf.path in met):
            where = frame.absolute(leaf.path)
            self.leaves.append(Leaf(where, leaf.why))
            self._children(where, module.get_submodule(leaf.path))

    def _children(self, path: str, module: nn.Module) -> None:
        if not any(map(is_primitive, module.modules())):
            return
        for name, child in module.named_children():
            where = f"{path}.{name}" if path else name
            if is_primitive(child) or not any(map(_convolves, child.modules())):
                continue
            seen = self.captured.get(where)
            if seen is None:
                self._children(where, child)
            elif seen.times == 1:
                self.frame(where, child, seen.inputs)

    @property
    def captured(self) -> dict[str, Captured]:
        if self._captured is None:
            self._captured = capture(self.network, self.inputs)
        return self._captured

    def facts(self) -> Iterator[NodeFacts]:
        """Every frame's nodes, those of a leaf's children before the leaf, in the order of the calls."""
        order = {path: number for number, path in enumerate(self._captured or ())}
        inner = sorted((frame for frame in self.frames if frame.path), key=lambda frame: order[frame.path])
        told: set[str] = set()
        dims = map_dims(self.inputs)
        for outer in self.frames if not inner or not self.frames[0].path else inner:
            if outer.path not in told:
                yield from _facts(outer, inner, told, dims, self.last)


def _facts(frame: Frame, inner: list[Frame], told: set[str], dims: int, last: set[str]) -> Iterator[NodeFacts]:
    """The frame's nodes; the names of maps whose channels are last are added to `last`."""
    told.add(frame.path)
    kinds = {node: fx_ops.kind(node, frame.traced.root) for node in frame.traced.graph.nodes}
    values = measured(frame.traced, frame.inputs.two, dims, kinds)
    turned = channels_last(frame.traced.graph.nodes, frame.traced.root, values.maps, kinds)
    forced = {leaf.path for leaf in frame.traced.leaves}
    for node in frame.traced.graph.nodes:
        if node.op == "call_module" and node.target in forced:
            within = frame.absolute(str(node.target)) + "."
            for part in inner:
                if part.path.startswith(within) and part.path not in told:
                    yield from _facts(part, inner, told, dims, last)
        op, conv = kinds[node]
        if op is Op.OTHER and node.op == "call_module" and node.target in forced and len(node.all_input_nodes) == 1:
            op = Op.ACT if fx_ops.is_elementwise(frame.traced.root.get_submodule(str(node.target))) else op
        op = Op.SIZE if node.name in values.sizes else op
        inputs = tuple(frame.name(value) for value in readings(node))
        scope = frame.absolute(scope_of(node))
        shape = values.maps.get(node.name)
        if shape is not None and node.name in turned:
            shape = (shape[-1], *shape[:-1])
            last.add(frame.name(node))
        yield NodeFacts(frame.name(node), op, inputs, scope, shape, conv, _piece(node))


_SPLITS = frozenset({"split", "chunk", "tensor_split", "split_with_sizes", "unsafe_split", "unsafe_chunk"})


def _piece(node: fx.Node) -> int | None:
    """The number of a value among those that a tensor was split into, as far as it is counted from the first."""
    if node.target is not operator.getitem:
        return None
    source, index = node.args
    if not isinstance(source, fx.Node) or source.op not in ("call_function", "call_method"):
        return None
    split = getattr(source.target, "__name__", str(source.target)) in _SPLITS
    return index if split and isinstance(index, int) and index >= 0 else None


def scope_of(node: fx.Node) -> str:
    """The path of the module that owns a node, seen from the frame."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    path = ""
    for entry in stack.values():
        path = entry[0]
    return path


def readings(node: fx.Node) -> list[fx.Node]:
    """Every value that a node reads, in order; repeated where it is read twice."""
    found: list[fx.Node] = []
    map_arg((node.args, node.kwargs), found.append)
    return found


def _convolves(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd)
