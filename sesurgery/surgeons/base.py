"""The contract of a surgeon: draw the neutral picture of a network, and carry a plan out on a copy of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from sesurgery.diagnostics import fail
from sesurgery.graph import GraphView
from sesurgery.planner import Plan
from sesurgery.reasons import Reason

Weights = Mapping[str, NDArray[np.generic]]
"""Values for the blocks' parameters by their full path, e.g. `layer1.0.se.fc1.weight`."""


@dataclass(frozen=True)
class Leaf:
    """A part of a network that is taken as a whole, and why; `kind` is the reason's, where it is in our own words.

    `hidden` is how many convolutions lie out of sight in it.
    """

    path: str
    why: str
    kind: str = ""
    hidden: int = 0

    @property
    def reason(self) -> Reason:
        # The texts name operators, which tell them apart, and no nodes.
        return Reason(self.kind, self.path, self.why, figure=self.why)


@dataclass(frozen=True)
class Outline:
    """What one look at a network tells: its neutral graph, and what of it was taken as a whole, and why."""

    view: GraphView
    leaves: tuple[Leaf, ...]


class Opened(Protocol):
    """A network made ready for an operation, in a form of the surgeon's own, with the view it is operated by."""

    @property
    def view(self) -> GraphView: ...


M = TypeVar("M")
O = TypeVar("O", bound=Opened)  # noqa: E741  (what is opened)


class Surgeon(ABC, Generic[M, O]):
    """View and apply for one representation of networks."""

    @abstractmethod
    def look(self, model: M) -> Outline:
        """The view and the leaves of the model, which stays untouched."""

    @final
    def view(self, model: M) -> GraphView:
        """The neutral graph of the model, which stays untouched."""
        return self.look(model).view

    @final
    def leaves(self, model: M) -> tuple[Leaf, ...]:
        """The parts that are taken as a whole, and why."""
        return self.look(model).leaves

    @final
    def apply(self, model: M, plan: Plan, weights: Weights | None = None) -> M:
        """A changed copy in which every block is proved to run, or an error and no copy; `model` stays untouched.

        Raises SE403 where the plan was made for another view, SE305 where a block cannot be built or does not keep the
        shape, SE404 where one does not run, SE405 where a name is taken.
        """
        # What is compared with the plan is what is operated on: one opening serves both.
        opened = self._open(model)
        if opened.view.digest != plan.view_digest:
            raise fail("SE403", "the plan was made for another network than this one", "plan again on this network")
        changed = self._insert(opened, plan, weights)
        self._prove(changed, plan)
        return changed

    @abstractmethod
    def _open(self, model: M) -> O:
        """What `_insert` works on, drawn anew; nothing that it changes belongs to the model."""

    @abstractmethod
    def _insert(self, opened: O, plan: Plan, weights: Weights | None) -> M:
        """A copy of the model with every site's block in it."""

    @abstractmethod
    def _prove(self, changed: M, plan: Plan) -> None:
        """Raise SE404 unless every block is executed, changes the output and can learn."""
