"""Standard SE: the end of the residual branch, before the sum (arXiv 1709.01507, section 6.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sesurgery.graph import GraphView, Use
from sesurgery.graph.idioms import NotResidual, residual_adds
from sesurgery.placements.base import Example, Match, Miss, Placement


@dataclass(frozen=True)
class Residual(Placement):
    """On the residual branch's last value, read by the sum alone: y = shortcut + SE(branch)."""

    def select(self, graph: GraphView) -> Iterator[Match | Miss]:
        for found in residual_adds(graph):
            where = found.add.scope or found.add.name
            if isinstance(found, NotResidual):
                yield Miss(where, found.why)
            else:
                # Only the sum is rerouted: another reader of the branch keeps the unscaled value.
                yield Match(found.branch, (Use(found.add.name, found.branch_slot),), found.add.scope)


EXAMPLES = (
    Example(
        "an identity shortcut",
        Residual(),
        """
        x = input() : 16x32x32
        conv1 = conv(x) [3x3 s1 p1 16->16] @b.conv1 : 16x32x32
        bn1 = norm(conv1) @b.bn1 : 16x32x32
        relu1 = act(bn1) @b.relu : 16x32x32
        conv2 = conv(relu1) [3x3 s1 p1 16->16] @b.conv2 : 16x32x32
        bn2 = norm(conv2) @b.bn2 : 16x32x32
        add = add(bn2, x) @b : 16x32x32
        """,
        {"bn2": ("add",)},
    ),
    Example(
        "a projection shortcut is the shallower side, on whichever side of the sum it stands",
        Residual(),
        """
        x = input() : 16x32x32
        conv1 = conv(x) [3x3 s2 p1 16->32] @b.conv1 : 32x16x16
        conv2 = conv(conv1) [3x3 s1 p1 32->32] @b.conv2 : 32x16x16
        down = conv(x) [1x1 s2 p0 16->32] @b.downsample.0 : 32x16x16
        add = add(down, conv2) @b : 32x16x16
        """,
        {"conv2": ("add",)},
    ),
    Example(
        "two paths of one depth cannot be told apart",
        Residual(),
        """
        x = input() : 16x32x32
        left = conv(x) [3x3 s1 p1 16->16] @left : 16x32x32
        right = conv(x) [1x1 s1 p0 16->16] @right : 16x32x32
        add = add(left, right) @join : 16x32x32
        """,
        {},
        ("look alike",),
    ),
    Example(
        "only the sum reads the scaled value",
        Residual(),
        """
        x = input() : 16x32x32
        conv = conv(x) [3x3 s1 p1 16->16] @b.conv : 16x32x32
        add = add(x, conv) @b : 16x32x32
        probe = act(conv) @probe : 16x32x32
        """,
        {"conv": ("add",)},
    ),
)
