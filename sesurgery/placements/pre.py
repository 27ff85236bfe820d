"""SE-PRE: before the residual unit, on the branch's input (arXiv 1709.01507, section 6.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sesurgery.graph import GraphView
from sesurgery.graph.residual import ResidualAdd
from sesurgery.placements.base import Example, Match, Miss, Placement, on_units
from sesurgery.placements.examples import units


@dataclass(frozen=True)
class Pre(Placement):
    """Before the residual branch: y = shortcut(x) + branch(SE(x))."""

    def select(self, graph: GraphView) -> Iterator[Match | Miss]:
        return on_units(graph, _at_the_branch_entry)


def _at_the_branch_entry(unit: ResidualAdd) -> Match:
    return Match(unit.fork, unit.entries, unit.add.scope)


EXAMPLES = (
    Example("a bottleneck", Pre(), units.BOTTLENECK, {"x": ("conv1",)}),
    Example("a projection reads the plain value", Pre(), units.BASIC_WITH_PROJECTION, {"x": ("conv1",)}),
    Example("before the first norm of a pre-activation unit", Pre(), units.PREACTIVATION, {"x": ("bn1",)}),
    Example("an inverted residual", Pre(), units.INVERTED_RESIDUAL, {"x": ("expand",)}),
    Example("every path of a branch", Pre(), units.SCALED_RESIDUAL, {"x": ("left", "mid")}),
    Example("a skip connection is not a unit", Pre(), units.ENCODER_DECODER, {}, ("a skip connection",)),
)
