"""The output of a multi-branch module: where Inception joins its branches (SE-Inception, arXiv 1709.01507, Fig. 2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sesurgery.graph import GraphView, Node, Op
from sesurgery.placements.base import Example, Match, Miss, Placement


@dataclass(frozen=True)
class Concat(Placement):
    """After every concatenation of parallel branches with a common input."""

    def select(self, graph: GraphView) -> Iterator[Match | Miss]:
        for node in graph:
            if node.op is Op.CONCAT:
                yield _judge(graph, node)


def _judge(graph: GraphView, node: Node) -> Match | Miss:
    where = node.scope or node.name
    if node.shape is None:
        return Miss("no_map", where, "it does not join feature maps")
    if len(node.inputs) < 2:
        return Miss("one_value", where, "it joins one value alone")
    if any(source.shape is None or source.shape[1:] != node.shape[1:] for source in node.inputs):
        return Miss("not_along_channels", where, "it does not join along the channels")
    if node.readings and all(graph[use.user].op is Op.CONCAT for use in node.readings):
        text = "it is joined again at once: only the outer join is the module's output"
        return Miss("joined_again", where, text)
    for source in node.inputs:
        if any(_descends(other, source) for other in node.inputs if other is not source):
            text = f"{source.name} is joined with what was computed from it: a dense or a skip connection"
            return Miss("skip_connection", where, text)
    return Match(node, node.uses, node.scope)


def _descends(node: Node, ancestor: Node) -> bool:
    """Whether `node` is computed from `ancestor`; looks no further back than the ancestor."""
    queue, seen = [node], {node.name}
    while queue:
        for source in queue.pop().inputs:
            if source is ancestor:
                return True
            if source.index > ancestor.index and source.name not in seen:
                seen.add(source.name)
                queue.append(source)
    return False


_INCEPTION = """
x = input() : 64x8x8
b1 = conv(x) [1x1 s1 p0 64->16] @mixed.b1 : 16x8x8
b2a = conv(x) [1x1 s1 p0 64->16] @mixed.b2a : 16x8x8
b2b = conv(b2a) [1x3 s1 p0x1 16->16] @mixed.b2b : 16x8x8
b2c = conv(b2a) [3x1 s1 p1x0 16->16] @mixed.b2c : 16x8x8
inner = concat(b2b, b2c) @mixed : 32x8x8
pool = pool(x) @mixed.pool : 64x8x8
outer = concat(b1, inner, pool) @mixed : 112x8x8
next = conv(outer) [1x1 s1 p0 112->16] @next : 16x8x8
"""

EXAMPLES = (
    Example(
        "an Inception module: the outer join, a pooled branch included",
        Concat(),
        _INCEPTION,
        {"outer": ("next",)},
        ("joined again",),
    ),
    Example(
        "dense concatenation keeps its own input",
        Concat(),
        """
        x = input() : 64x8x8
        a = conv(x) [3x3 s1 p1 64->32] @dense.a : 32x8x8
        cat1 = concat(x, a) @dense : 96x8x8
        b = conv(cat1) [3x3 s1 p1 96->32] @dense.b : 32x8x8
        """,
        {},
        ("dense or a skip",),
    ),
    Example(
        "a decoder's skip connection",
        Concat(),
        """
        x = input() : 16x8x8
        enc = conv(x) [3x3 s1 p1 16->16] @enc : 16x8x8
        down = conv(enc) [3x3 s2 p1 16->32] @down : 32x4x4
        up = other(down) @up : 32x8x8
        cat = concat(up, enc) @dec : 48x8x8
        head = conv(cat) [1x1 s1 p0 48->4] @head : 4x8x8
        """,
        {},
        ("dense or a skip",),
    ),
)
