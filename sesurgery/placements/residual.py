"""Standard SE: the end of the residual branch, before the sum (arXiv 1709.01507, section 6.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sesurgery.graph import GraphView
from sesurgery.graph.residual import ResidualAdd
from sesurgery.placements.base import Example, Match, Miss, Placement, on_units
from sesurgery.placements.examples import units


@dataclass(frozen=True)
class Residual(Placement):
    """At the end of the residual branch, before the sum: y = shortcut + SE(branch).

    A constant scale (Inception-ResNet), a layer scale or a drop-path at the branch's end stays behind the block.
    """

    def select(self, graph: GraphView) -> Iterator[Match | Miss]:
        return on_units(graph, _before_the_sum)


def _before_the_sum(unit: ResidualAdd) -> Match:
    # One reading is rerouted: another reader of the branch keeps the unscaled value.
    value, use = unit.branch
    return Match(value, (use,), unit.add.scope)


EXAMPLES = (
    Example("an identity shortcut", Residual(), units.BOTTLENECK, {"bn3": ("add",)}),
    Example("a projection is the shallower side", Residual(), units.BASIC_WITH_PROJECTION, {"bn2": ("add",)}),
    Example("a pre-activation unit ends in a convolution", Residual(), units.PREACTIVATION, {"conv2": ("add",)}),
    Example("before a drop-path", Residual(), units.INVERTED_RESIDUAL, {"bn3": ("drop",)}),
    Example("before a constant scale", Residual(), units.SCALED_RESIDUAL, {"up": ("scaled",)}),
    Example("before a layer scale", Residual(), units.LAYER_SCALE, {"fc2": ("scaled",)}),
    Example("a unit within a unit", Residual(), units.NESTED, {"b": ("inner",), "inner": ("outer",)}),
    Example("a sum of three is two sums", Residual(), units.THREE_WAY, {"a": ("first",), "b2": ("second",)}),
    Example("a skip connection is not a unit", Residual(), units.ENCODER_DECODER, {}, ("a skip connection",)),
    Example(
        "two paths of the same depth: which one is the branch is ambiguous",
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
