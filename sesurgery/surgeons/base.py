"""The contract of a surgeon: draw the neutral picture of a network, and carry a plan out on a copy of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from sesurgery.diagnostics import Diagnostic, SesurgeryError, fail
from sesurgery.graph import GraphView
from sesurgery.planner import Plan
from sesurgery.reasons import Reason

Weights = Mapping[str, NDArray[np.generic]]
"""Values for the blocks' parameters by their full path, e.g. `layer1.0.se.fc1.weight`."""


@dataclass(frozen=True)
class Leaf:
    """A part of a network that is not traced into, and why.

    `kind` is set where the reason is one of ours. `hidden` is the number of convolutions of maps inside it that cannot
    be seen, `gates` that of channel gates.
    """

    path: str
    why: str
    kind: str = ""
    hidden: int = 0
    gates: int = 0

    @property
    def reason(self) -> Reason:
        # These texts name operators but no nodes, so equal texts can be grouped.
        return Reason(self.kind, self.path, self.why, figure=self.why)


@dataclass(frozen=True)
class Outline:
    """The result of drawing a network: its neutral graph, and the parts that were not traced into, with reasons."""

    view: GraphView
    leaves: tuple[Leaf, ...]


class Unfaithful(SesurgeryError):  # noqa: N818  (what the graphs are)
    """Modules that would have to run a graph which is another function than their forward, or for which there is none.

    `parts` are their paths. Called as they are, everything around them can still be changed.
    """

    def __init__(self, diagnostics: Diagnostic | Sequence[Diagnostic], parts: Iterable[str] = ()) -> None:
        super().__init__(diagnostics)
        self.parts = tuple(dict.fromkeys(parts))


class Opened(Protocol):
    """A network opened for an operation, in the surgeon's own form, with its view."""

    @property
    def view(self) -> GraphView: ...


M = TypeVar("M")
O = TypeVar("O", bound=Opened)  # noqa: E741  (what is opened)


class Surgeon(ABC, Generic[M, O]):
    """View and apply for one representation of networks."""

    @abstractmethod
    def look(self, model: M, called: tuple[str, ...] = ()) -> Outline:
        """The view and the leaves of the model, which is not changed; modules of `called` are leaves too."""

    @final
    def view(self, model: M) -> GraphView:
        """The neutral graph of the model, which is not changed."""
        return self.look(model).view

    @final
    def leaves(self, model: M) -> tuple[Leaf, ...]:
        """The parts that are not traced into, and why."""
        return self.look(model).leaves

    @final
    def apply(self, model: M, plan: Plan, weights: Weights | None = None) -> M:
        """A changed copy in which every block is proved to run, or an error and no copy; `model` stays untouched.

        Raises SE403 if the plan was made for another view, Unfaithful if a site lies in a module of whose forward
        there is no graph that is the same function, SE305 if a block cannot be built or does not keep the
        shape, SE404 if one does not run, SE405 if a name is taken.
        """
        # The view that is compared with the plan is the one that is changed.
        opened = self._open(model, plan)
        if opened.view.digest != plan.view_digest:
            raise fail("SE403", "the plan was made for another network than this one", "plan again on this network")
        changed = self._insert(opened, plan, weights)
        self._prove(changed, plan)
        return changed

    @abstractmethod
    def _open(self, model: M, plan: Plan) -> O:
        """The input of `_insert`, with a drawing; it shares nothing with the model that `_insert` changes."""

    @abstractmethod
    def _insert(self, opened: O, plan: Plan, weights: Weights | None) -> M:
        """A copy of the model with every site's block in it."""

    @abstractmethod
    def _prove(self, changed: M, plan: Plan) -> None:
        """Raise SE404 unless every block is executed, changes the output and can learn."""
