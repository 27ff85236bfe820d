"""One named value, for users who have read the graph and want a block exactly there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sesurgery.graph import GraphView
from sesurgery.placements.base import Example, Match, Miss, Placement
from sesurgery.placements.examples import units


@dataclass(frozen=True)
class Tensor(Placement):
    """After the value of that name, as `plan` prints it."""

    name: str

    def select(self, graph: GraphView) -> Iterator[Match | Miss]:
        if self.name not in graph:
            yield Miss("no_value", self.name, "there is no value of that name")
            return
        value = graph[self.name]
        if value.shape is None:
            yield Miss("no_map", self.name, "it is not a feature map of channels, height and width")
        elif not value.uses:
            yield Miss("unread", self.name, "nothing reads it")
        else:
            yield Match(value, value.uses, value.scope)


EXAMPLES = (
    Example("a value by its name", Tensor("bn2"), units.BOTTLENECK, {"bn2": ("act2",)}),
    Example("every reader is rerouted", Tensor("x"), units.BOTTLENECK, {"x": ("conv1", "add")}),
    Example("a name that is not there", Tensor("bn9"), units.BOTTLENECK, {}, ("no value of that name",)),
)
