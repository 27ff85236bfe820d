"""SE-POST: after the sum and its activation (arXiv 1709.01507, section 6.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sesurgery.graph import GraphView
from sesurgery.graph.idioms import activated
from sesurgery.graph.residual import ResidualAdd
from sesurgery.placements.base import Example, Match, Miss, Placement, on_units
from sesurgery.placements.examples import units


@dataclass(frozen=True)
class Post(Placement):
    """After the residual unit: y = SE(act(shortcut + branch))."""

    def select(self, graph: GraphView) -> Iterator[Match | Miss]:
        def after(unit: ResidualAdd) -> Match | Miss:
            value = activated(graph, unit.add)
            if not value.readings:
                return Miss("unread", unit.add.scope or unit.add.name, "nothing reads the unit's output")
            return Match(value, value.uses, unit.add.scope)

        return on_units(graph, after)


EXAMPLES = (
    Example("after the activation", Post(), units.BOTTLENECK, {"act3": ("next",)}),
    Example("a projection shortcut makes no difference", Post(), units.BASIC_WITH_PROJECTION, {"act2": ("next",)}),
    Example(
        "a pre-activation unit ends in its sum, and every reader gets the scaled value",
        Post(),
        units.PREACTIVATION,
        {"add": ("nextbn", "nextadd")},
    ),
    Example(
        "an inverted residual has no activation after the sum", Post(), units.INVERTED_RESIDUAL, {"add": ("next",)}
    ),
    Example("a scaled residual", Post(), units.SCALED_RESIDUAL, {"relu": ("next",)}),
    Example("a skip connection is not a unit", Post(), units.ENCODER_DECODER, {}, ("a skip connection",)),
)
