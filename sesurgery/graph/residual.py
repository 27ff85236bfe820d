"""Residual units in the neutral graph: sums whose two inputs part at one value, one of them through more convolutions.

They are found by dataflow, so in any network, and a sum that is none says why.
"""

from __future__ import annotations

import heapq
import itertools
import operator
from dataclasses import dataclass

from sesurgery.graph.view import GraphView, Node, Op, Shape, Use, is_one_pixel


@dataclass(frozen=True)
class ResidualAdd:
    """A sum of two paths from one fork: the residual branch and the shortcut.

    `branch_slot` is the input of `add` that the branch is; `branch_nodes` and `shortcut_nodes` are the nodes between
    the fork and the sum on each side, in topological order (none on an identity shortcut).
    """

    add: Node
    fork: Node
    branch_slot: int
    branch_depth: int
    shortcut_depth: int
    branch_nodes: tuple[Node, ...]
    shortcut_nodes: tuple[Node, ...]

    @property
    def shortcut(self) -> tuple[Node, Use]:
        """The shortcut's last value, and its use by the sum."""
        slot = 1 - self.branch_slot
        return self.add.inputs[slot], Use(self.add.name, slot)

    @property
    def branch(self) -> tuple[Node, Use]:
        """The branch's last value before a constant scale or a drop path, and its only use."""
        node, use = self.add.inputs[self.branch_slot], Use(self.add.name, self.branch_slot)
        inside = {item.name for item in self.branch_nodes}
        while len(node.readings) == 1 and (slot := _scaled_or_passed(node)) is not None:
            below = node.inputs[slot]
            if below.name not in inside:
                break
            node, use = below, Use(node.name, slot)
        return node, use

    @property
    def entries(self) -> tuple[Use, ...]:
        """The uses of the fork by the branch."""
        inside = {item.name for item in self.branch_nodes}
        return tuple(use for use in self.fork.uses if use.user in inside)


@dataclass(frozen=True)
class NotResidual:
    """A sum that is not a residual unit: the kind of reason, its text, and what was found."""

    add: Node
    kind: str
    why: str
    figure: str = ""


def residual_adds(graph: GraphView) -> list[ResidualAdd | NotResidual]:
    """Every sum of two maps in the graph, classified by its dataflow, in topological order.

    The residual branch is the path from the fork with more convolutions (the longest chain counts); a shortcut is the
    identity or a shorter projection. Two paths of the same depth are reported as `NotResidual`. A sum of more terms is
    a chain of sums, each classified on its own.
    """
    return [*graph.once(_judged)]


def _judged(graph: GraphView) -> tuple[ResidualAdd | NotResidual, ...]:
    return tuple(_judge(node) for node in graph if node.op is Op.ADD)


def _judge(add: Node) -> ResidualAdd | NotResidual:
    if len(add.inputs) == 1:
        return NotResidual(add, "constant", "it adds a constant to one value")
    if len(add.inputs) != 2:
        return NotResidual(add, "many_terms", f"it sums {len(add.inputs)} values, not two", str(len(add.inputs)))
    first, second = add.inputs
    if first.shape is None or second.shape is None:
        return NotResidual(add, "no_map", "it does not sum feature maps")
    if first.shape != second.shape:
        shapes = f"{_size(first.shape)} and {_size(second.shape)}"
        return NotResidual(add, "shapes_differ", f"its inputs differ in shape: {shapes}", shapes)
    if first is second:
        return NotResidual(add, "same_value", "both inputs are one value")
    fork, sides, elsewhere = _fork(first, second)
    if fork is None:
        return NotResidual(add, "no_fork", "its inputs have no common source")
    pieces = {node.piece for side in sides for node in side if fork in node.inputs}
    if all(sides) and None not in pieces and len(pieces) > 1:
        return NotResidual(add, "pieces", "its inputs come from different pieces of one split, so it has no shortcut")
    depths = (_depth(first, fork, sides[0]), _depth(second, fork, sides[1]))
    if depths[0] == depths[1]:
        deep = "no convolution" if depths[0] == 0 else f"{depths[0]} convolution{'s' if depths[0] > 1 else ''} deep"
        return NotResidual(add, "same_depth", f"both inputs lie {deep}: branch and shortcut look alike", deep)
    if all(_is_scaled(value, fork) for value in (first, second)):
        return NotResidual(add, "two_gates", "it adds two gates of one value")
    branch = 0 if depths[0] > depths[1] else 1
    if any(_mixes(node) for node in sides[1 - branch]):
        why = "its shallower input is attention over the map, and the deeper one its position encoding"
        return NotResidual(add, "position_code", why)
    low = None if _is_one_module(sides[branch], add) else _lowest(sides[branch], add.inputs[branch])
    if low is not None and add.shape is not None and any(map(operator.lt, low, add.shape[1:])):
        why = f"its deeper input goes down to {_size(low)} and comes back: a skip connection, not a residual unit"
        return NotResidual(add, "skip_connection", why, _size(low))
    if depths[1 - branch] and _begins_elsewhere(sides[branch], add):
        why = "its deeper input begins outside the module that sums: it joins the levels of a pyramid, and is no unit"
        return NotResidual(add, "pyramid", why)
    if 1 - branch in elsewhere:
        return NotResidual(
            add, "no_shortcut", "its shallower input comes from other values as well, so it is no shortcut"
        )
    return ResidualAdd(add, fork, branch, depths[branch], depths[1 - branch], sides[branch], sides[1 - branch])


Sides = tuple[tuple[Node, ...], tuple[Node, ...]]


def _fork(first: Node, second: Node) -> tuple[Node | None, Sides, frozenset[int]]:
    """The latest value that both inputs descend from, the nodes between, and which of them descend from others as well.

    Walks back from both inputs at once, always from the latest node, so it visits only the unit itself and the cost for
    a whole network is linear. Sizes and weights are no data: what reads a size off a value does not descend from it.
    """
    reached: dict[str, set[int]] = {first.name: {0}, second.name: {1}}
    queue = [(-node.index, node.name, node) for node in (first, second) if not node.constant]
    heapq.heapify(queue)
    sides: tuple[list[Node], list[Node]] = ([], [])
    while queue:
        _, name, node = heapq.heappop(queue)
        if len(reached[name]) == 2:
            elsewhere = frozenset(side for _, _, below in queue for side in reached[below.name])
            return node, (tuple(reversed(sides[0])), tuple(reversed(sides[1]))), elsewhere
        for side in reached[name]:
            sides[side].append(node)
        for source in node.inputs:
            if source.constant:
                continue
            if source.name not in reached:
                reached[source.name] = set()
                heapq.heappush(queue, (-source.index, source.name, source))
            reached[source.name] |= reached[name]
    return None, ((), ()), frozenset()


def _depth(end: Node, fork: Node, nodes: tuple[Node, ...]) -> int:
    """The largest number of convolutions on any path from the fork (excluded) to `end` (included)."""
    depths: dict[str, int] = {fork.name: 0}
    for node in nodes:
        below = [depths[source.name] for source in node.inputs if source.name in depths]
        # A value that does not come from the fork (another input, a position encoding) is on no path.
        if below:
            depths[node.name] = max(below) + (node.op is Op.CONV)
    return depths.get(end.name, 0)


def _is_scaled(value: Node, fork: Node) -> bool:
    """Whether a value is the fork times something."""
    return (
        value.op is Op.MUL
        and fork in value.inputs
        and len(value.inputs) == 2
        and not any(source.constant for source in value.inputs)
    )


def _mixes(node: Node) -> bool:
    """Whether a node combines two values into something else, like the matrix product in attention.

    Attention with heads has values of three dimensions, as maps have: no product pixel by pixel takes their shapes.
    """
    data = {source.name: source.shape for source in node.inputs if not source.constant}
    if node.op is not Op.OTHER or len(data) < 2:
        return False
    shapes = [shape for shape in data.values() if shape is not None]
    return len(data) - len(shapes) > 1 or any(not _broadcasts(*pair) for pair in itertools.pairwise(shapes))


def _broadcasts(first: Shape, second: Shape) -> bool:
    return all(one == other or 1 in (one, other) for one, other in zip(first, second, strict=True))


def _begins_elsewhere(nodes: tuple[Node, ...], add: Node) -> bool:
    """Whether some convolutions of a branch lie in the module that sums, and others outside it (FPN).

    All lie outside where a module does nothing but add. Around an identity it is a unit all the same: the last layer of
    a block may add what its caller hands it (EfficientNet of transformers).
    """
    inside = {f"{node.scope}.".startswith(f"{add.scope}.") for node in nodes if node.op is Op.CONV}
    return bool(add.scope) and len(inside) == 2


def _is_one_module(nodes: tuple[Node, ...], add: Node) -> bool:
    """Whether a branch goes down and comes back, with all its convolutions, in one module that the sum's module calls.

    Such a module is the branch of a unit (attention at half the resolution); a decoder's sum joins modules of the
    encoder and of the decoder.
    """
    inner, size = f"{add.scope}." if add.scope else "", (add.shape or ())[1:]
    called = {
        node.scope.removeprefix(inner).partition(".")[0] if node.scope.startswith(inner) else ""
        for node in nodes
        if node.op is Op.CONV
        or any(value.shape is None or value.shape[1:] != size for value in (node, *node.inputs) if not value.constant)
    }
    return len(called) == 1 and called != {""}


def _lowest(nodes: tuple[Node, ...], end: Node) -> tuple[int, ...] | None:
    """The lowest resolution of the branch's convolutions, except those on single pixels.

    A path that only scales another value (an attention that goes down and up again) is not the branch: for a product,
    the side with the higher resolution counts.
    """
    lows: dict[str, tuple[int, ...] | None] = {}
    for node in nodes:
        below = [lows[source.name] for source in node.inputs if source.name in lows]
        outside = any(source.name not in lows and not source.constant for source in node.inputs)
        known = [low for low in below if low is not None]
        low: tuple[int, ...] | None
        if node.op is Op.MUL and len(node.inputs) == 2:
            high = outside or len(known) < len(below)
            low = None if high or not known else max(known)
        else:
            low = _least(known)
        if _comes_back_from_a_pixel(node):
            low = (1,) * len((node.shape or end.shape or (1, 1, 1))[1:])
        if node.op is Op.CONV and node.shape and not is_one_pixel(node.shape):
            low = _least([*([low] if low else []), node.shape[1:]])
        lows[node.name] = low
    return lows.get(end.name)


def _comes_back_from_a_pixel(node: Node) -> bool:
    """Whether a map is computed from a single pixel, for example by interpolation."""
    sources = [source for source in node.inputs if source.shape is not None]
    spread = node.shape is not None and not is_one_pixel(node.shape)
    return spread and node.op is Op.OTHER and len(sources) == 1 and is_one_pixel(sources[0].shape)  # type: ignore[arg-type]


def _least(sizes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    return tuple(map(min, *sizes)) if len(sizes) > 1 else sizes[0] if sizes else None


def _scaled_or_passed(node: Node) -> int | None:
    """The input that a node only scales by a constant, or passes through; None if it does something else."""
    if node.op is Op.PASS:
        return 0
    if node.op is not Op.MUL:
        return None
    data = [slot for slot, source in enumerate(node.inputs) if not source.constant]
    return data[0] if len(data) == 1 else None


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
