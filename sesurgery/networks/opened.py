"""The common interface of opened networks, torch modules and ONNX files alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Protocol, Self, TypeVar

from torch import nn

from sesurgery import planner
from sesurgery.accounting import Account, Cost
from sesurgery.counting import Convention
from sesurgery.diagnostics import SesurgeryError
from sesurgery.graph import GraphView, Shape
from sesurgery.networks.heads import NewHead
from sesurgery.planner import Plan
from sesurgery.spec import NamesSurgery
from sesurgery.surgeons.base import Leaf, Outline, Unfaithful, Weights

T = TypeVar("T")


class OpenNetwork(Protocol):
    """A network and the shape of its input. It is drawn and counted when that is first asked, once, and never changed.

    Whatever needs the drawing raises SE304 if the shape does not fit and SE403 if nothing can be drawn, SE306 or
    SE602 by what it is made of.
    """

    @property
    def shape(self) -> Shape:
        """Channels, height and width of the input, or of the part's that is operated on."""
        ...

    @property
    def assumed(self) -> bool:
        """Whether the shape is a guess."""
        ...

    @property
    def keys(self) -> Mapping[str, tuple[str, ...]]:
        """The keys of a spec that its errors are about, by error code."""
        ...

    @property
    def view(self) -> GraphView: ...

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The parts that are not traced into, and why."""
        ...

    @property
    def cost(self) -> Cost: ...

    def account(self, convention: Convention = "torch") -> Account:
        """What every module costs; raises SE302 if there are no modules."""
        ...

    def require_module(self, why: str, instead: str) -> nn.Module:
        """What can be trained; raises SE302, with `why` a file will not do and what to do `instead`, of a file."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What surgery leaves alone, and of a changed network what could not be compared; a plan says the first too."""
        ...

    @property
    def head(self) -> NewHead | None:
        """The head, where it is of other classes than the values that the network was given; None of a file."""
        ...

    def plan(self, surgery: NamesSurgery) -> Plan:
        """Where the blocks of a spec, or of rules without a spec, go; raises SpecError with every mistake."""
        ...

    def apply(self, plan: Plan, weights: Weights | None = None) -> Self:
        """A changed copy, as its surgeon makes it. Fresh values come from torch's global generator."""
        ...

    def calling(self, parts: tuple[str, ...]) -> Self:
        """The same network with these modules as leaves: itself if it has no others than those that are so already."""
        ...


N = TypeVar("N", bound=OpenNetwork)


def faithfully(network: N, attempt: Callable[[N], T]) -> T:
    """What `attempt` gives for the network, with modules as leaves whose graphs are other functions than they are.

    Raises the first attempt's error where nothing else is left to try.
    """
    first: Unfaithful | None = None
    while True:
        try:
            return attempt(network)
        except Unfaithful as error:
            first = first or error
            again = network.calling(error.parts)
            if again is network:
                raise first from None
            network = again
        except SesurgeryError:
            if first is None:
                raise
            raise first from None


class Drawn:
    """What every open network answers from its drawing, which is made when it is first asked for."""

    @cached_property
    def outline(self) -> Outline:
        """The drawing."""
        raise NotImplementedError

    @property
    def warnings(self) -> tuple[str, ...]:
        return ()

    @property
    def view(self) -> GraphView:
        return self.outline.view

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        return self.outline.leaves

    def plan(self, surgery: NamesSurgery) -> Plan:
        return planner.plan(surgery, self.view)
