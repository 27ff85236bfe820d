"""The contract of a placement: it looks at the graph and names values, or says why a candidate is none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sesurgery.graph import GraphView, Node, Use
from sesurgery.graph.residual import NotResidual, ResidualAdd, residual_adds
from sesurgery.reasons import Reason


@dataclass(frozen=True)
class Match:
    """Insert on `value` and reroute exactly these uses; `scope` is the module that owns the site."""

    value: Node
    uses: tuple[Use, ...]
    scope: str


class Miss(Reason):
    """A candidate that was turned down: the kind of reason, where, why in words, and what was found."""


@dataclass(frozen=True)
class Unknown:
    """A name that stands at `place` under `at:`, and names no module."""

    place: tuple[str | int, ...]
    name: str


class Placement(ABC):
    """Where blocks go. Subclasses are frozen dataclasses whose fields are the options under `at:` in a spec."""

    @abstractmethod
    def select(self, graph: GraphView) -> Iterable[Match | Miss]:
        """Every candidate of this kind, in topological order."""

    def unknown(self, graph: GraphView) -> Iterable[Unknown]:
        """Options that name what the network does not have."""
        return ()


def on_units(graph: GraphView, choose: Callable[[ResidualAdd], Match | Miss]) -> Iterator[Match | Miss]:
    """What a placement chooses in every residual unit; sums that are none are misses with their reason.

    Of units within each other that choose the same place, the first has it: the innermost.
    """
    taken: dict[Use, str] = {}
    for found in residual_adds(graph):
        where = found.add.scope or found.add.name
        if isinstance(found, NotResidual):
            yield Miss(found.kind, where, found.why, found.figure)
            continue
        chosen = choose(found)
        if isinstance(chosen, Match):
            first = next((taken[use] for use in chosen.uses if use in taken), None)
            if first is not None:
                yield Miss("same_place", where, f"its place is that of the unit within it, which ends in {first}")
                continue
            taken |= dict.fromkeys(chosen.uses, found.add.name)
        yield chosen


@dataclass(frozen=True)
class Example:
    """A graph as text and what the placement must find in it: the value of each match, with the users rerouted."""

    name: str
    placement: Placement
    graph: str
    matches: Mapping[str, tuple[str, ...]]
    misses: tuple[str, ...] = ()
    """A part of each expected reason, in order."""
