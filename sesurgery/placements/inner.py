"""SE inside the unit: directly after its spatial convolution (SE_3x3 in arXiv 1709.01507, section 6.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sesurgery.graph import GraphView
from sesurgery.graph.idioms import conv_units
from sesurgery.graph.residual import ResidualAdd
from sesurgery.placements.base import Example, Match, Miss, Placement, on_units
from sesurgery.placements.examples import units


@dataclass(frozen=True)
class Inner(Placement):
    """After the branch's first k x k convolution with its norm and activation.

    This is where MobileNetV3, EfficientNet and RegNetY have their blocks. A convolution and its folded norm are one
    unit, so the site is the same in a network and in its export.
    """

    def select(self, graph: GraphView) -> Iterator[Match | Miss]:
        units = {unit.conv.name: unit for unit in conv_units(graph)}

        def choose(found: ResidualAdd) -> Match | Miss:
            spatial = [node for node in found.branch_nodes if node.conv and max(node.conv.kernel) > 1]
            if not spatial:
                where = found.add.scope or found.add.name
                return Miss("no_spatial_convolution", where, "its branch has no k x k convolution")
            end = units[spatial[0].name].end
            return Match(end, end.uses, found.add.scope)

        return on_units(graph, choose)


EXAMPLES = (
    Example("the 3 x 3 of a bottleneck", Inner(), units.BOTTLENECK, {"act2": ("conv3",)}),
    Example("the first 3 x 3 of a basic block", Inner(), units.BASIC_WITH_PROJECTION, {"act1": ("conv2",)}),
    Example("a pre-activation unit", Inner(), units.PREACTIVATION, {"act2": ("conv2",)}),
    Example(
        "the depthwise convolution of an inverted residual", Inner(), units.INVERTED_RESIDUAL, {"act2": ("project",)}
    ),
    Example(
        "a unit around another has the same first k x k convolution",
        Inner(),
        """
        x = input() : 8x8x8
        a = conv(x) [1x1 s1 p0 8->8] @b.a : 8x8x8
        b = conv(a) [3x3 s1 p1 8->8] @b.b : 8x8x8
        inner = add(b, a) @b.unit : 8x8x8
        outer = add(x, inner) @b : 8x8x8
        """,
        {"b": ("inner",)},
        ("the unit within it, which ends in inner",),
    ),
    Example(
        "a unit of 1 x 1 convolutions has none",
        Inner(),
        """
        x = input() : 16x8x8
        conv = conv(x) [1x1 s1 p0 16->16] @b.conv : 16x8x8
        add = add(conv, x) @b : 16x8x8
        """,
        {},
        ("no k x k convolution",),
    ),
)
