"""SE-Identity: on the shortcut, beside the residual branch (arXiv 1709.01507, section 6.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sesurgery.graph import GraphView
from sesurgery.graph.residual import ResidualAdd
from sesurgery.placements.base import Example, Match, Miss, Placement, on_units
from sesurgery.placements.examples import units


@dataclass(frozen=True)
class Identity(Placement):
    """At the end of the shortcut, before the sum: y = SE(shortcut(x)) + branch(x)."""

    def select(self, graph: GraphView) -> Iterator[Match | Miss]:
        return on_units(graph, _on_the_shortcut)


def _on_the_shortcut(unit: ResidualAdd) -> Match:
    value, use = unit.shortcut
    return Match(value, (use,), unit.add.scope)


EXAMPLES = (
    Example("an identity shortcut is the unit's input, read by the sum", Identity(), units.BOTTLENECK, {"x": ("add",)}),
    Example("a projection shortcut ends in its norm", Identity(), units.BASIC_WITH_PROJECTION, {"downbn": ("add",)}),
    Example("a pre-activation unit", Identity(), units.PREACTIVATION, {"x": ("add",)}),
    Example("an inverted residual", Identity(), units.INVERTED_RESIDUAL, {"x": ("add",)}),
    Example("a skip connection is not a unit", Identity(), units.ENCODER_DECODER, {}, ("a skip connection",)),
)
