"""The contract of a surgeon: draw the neutral picture of a network, and carry a plan out on a copy of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from sesurgery.diagnostics import fail
from sesurgery.graph import GraphView
from sesurgery.planner import Plan

M = TypeVar("M")
Weights = Mapping[str, NDArray[np.generic]]
"""Values for the blocks' parameters by their full path, e.g. `layer1.0.se.fc1.weight`."""


class Surgeon(ABC, Generic[M]):
    """View and apply for one representation of networks."""

    @abstractmethod
    def view(self, model: M) -> GraphView:
        """The neutral graph of the model, which stays untouched."""

    @final
    def apply(self, model: M, plan: Plan, weights: Weights | None = None) -> M:
        """A changed copy in which every block is proved to run, or an error and no copy; `model` stays untouched.

        Raises SE403 where the plan was made for another view, SE305 where a block cannot be built or does not keep the
        shape, SE404 where one does not run, SE405 where a name is taken.
        """
        if self.view(model).digest != plan.view_digest:
            raise fail("SE403", "the plan was made for another network than this one", "plan again on this network")
        changed = self._insert(model, plan, weights)
        self._prove(changed, plan)
        return changed

    @abstractmethod
    def _insert(self, model: M, plan: Plan, weights: Weights | None) -> M:
        """A copy of the model with every site's block in it."""

    @abstractmethod
    def _prove(self, changed: M, plan: Plan) -> None:
        """Raise SE404 unless every block is executed, changes the output and can learn."""
