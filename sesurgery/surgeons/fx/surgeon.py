"""The surgeon for PyTorch: torch.fx draws the network and reroutes values; every original name and value survives.

The plan is made on the drawing of the whole network. It is carried out in the smallest modules whose forwards contain
the places: each of them runs a graph instead of its code, everything around them stays the user's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from sesurgery.accounting import casts_forgotten
from sesurgery.diagnostics import SesurgeryError, described, fail, suggest
from sesurgery.graph import GraphView, Shape
from sesurgery.planner import Plan
from sesurgery.surgeons.base import Outline, Surgeon, Weights
from sesurgery.surgeons.fx.admission import admit, with_parts
from sesurgery.surgeons.fx.captured import part_inputs, run_whole
from sesurgery.surgeons.fx.copying import duplicate, twin
from sesurgery.surgeons.fx.eager import eagerly
from sesurgery.surgeons.fx.edit import carry_out
from sesurgery.surgeons.fx.inputs import Inputs, image_inputs, tensors
from sesurgery.surgeons.fx.proof import prove
from sesurgery.surgeons.fx.view import Drawing, draw


@dataclass(frozen=True)
class _Opened:
    """A copy of a network, the part of it that is operated on, what that is called with, and its drawing."""

    whole: nn.Module
    part: nn.Module
    inputs: Inputs
    drawing: Drawing

    @property
    def view(self) -> GraphView:
        return self.drawing.view


class FxSurgeon(Surgeon[nn.Module, _Opened]):
    """View and apply for `torch.nn.Module`s that take one image tensor of `shape` (channels, height, width).

    With `submodule` only that part of the model is looked at and changed, and `shape` is the part's input: a detector's
    backbone, whose whole takes and gives more than one tensor. Where the whole says that it takes images, as networks
    of transformers do, the part is looked at as the whole calls it, and the changed whole is run too. With `inputs` the
    part is called with these, in whatever number and form, and `shape` is not used. `tell` is called with a text for
    what `apply` could not compare. `drawn` is a drawing of the very network that `apply` is given, made by a surgeon
    like this one for the plan's `called`; without it `apply` draws the network.
    """

    def __init__(
        self,
        shape: Shape,
        submodule: str = "",
        inputs: Inputs | None = None,
        tell: Callable[[str], object] = lambda text: None,
        drawn: Drawing | None = None,
    ) -> None:
        self.shape = shape
        self.submodule = submodule
        self.inputs = inputs
        self.tell = tell
        self.drawn = drawn

    def part(self, model: nn.Module) -> nn.Module:
        """The part of the model that this surgeon changes; raises SE306 if there is no such part."""
        try:
            return model.get_submodule(self.submodule)
        except AttributeError:
            known = [path for path, _ in model.named_modules() if path]
            text = f"the model has no submodule {self.submodule!r}"
            raise fail("SE306", text, suggest(self.submodule, known)) from None

    def _inputs(self, model: nn.Module) -> Inputs:
        if self.inputs is not None:
            return self.inputs
        return self._as_called(model) or image_inputs(self.part(model), self.shape)

    def _as_called(self, model: nn.Module) -> Inputs | None:
        """What the whole calls its part with; None if it does not say that it takes images, or has other ones."""
        if not self.submodule or getattr(model, "main_input_name", "") != "pixel_values":
            return None
        try:
            found = part_inputs(model, image_inputs(model, self.shape), self.submodule)
        except SesurgeryError:
            return None
        image = next(tensors((found.two.args, dict(found.two.kwargs or {}))), None)
        return found if image is not None and tuple(image.shape[1:]) == self.shape else None

    def look(self, model: nn.Module, called: tuple[str, ...] = ()) -> Outline:
        return self.drawing(model, called).outline

    def drawing(self, model: nn.Module, called: tuple[str, ...] = ()) -> Drawing:
        """The view with the graphs that it was made of: those who look at values run them."""
        admit(model, len(self.shape) - 1)
        part, inputs = self.part(model), self._inputs(model)
        try:
            with eagerly(model):
                return draw(part, inputs, called)
        except SesurgeryError as error:
            raise self.with_parts(error, model) from error

    def with_parts(self, error: SesurgeryError, model: nn.Module, instead: str = "") -> SesurgeryError:
        """The error with a hint that names parts of the model which would work, where the whole was to be changed."""
        return error if self.submodule else with_parts(error, model, self.shape, instead)

    def _open(self, model: nn.Module, plan: Plan) -> _Opened:
        admit(model, len(self.shape) - 1)
        whole = duplicate(model)
        part, inputs = self.part(whole), self._inputs(whole)
        # Gates are removed from the drawing itself.
        if self.drawn is not None and not plan.removals:
            return _Opened(whole, part, inputs, self.drawn)
        with eagerly(whole):
            return _Opened(whole, part, inputs, draw(part, inputs, plan.called))

    @casts_forgotten()
    def _insert(self, opened: _Opened, plan: Plan, weights: Weights | None) -> nn.Module:
        runs = self.inputs is None and self._as_called(opened.whole) is not None
        with eagerly(opened.whole):
            carry_out(opened.part, opened.drawing, plan, opened.inputs.two, weights, self.tell)
        if runs:
            run_whole(opened.whole, image_inputs(opened.whole, self.shape))
        return opened.whole

    @casts_forgotten()
    def _prove(self, changed: nn.Module, plan: Plan) -> None:
        # A copy with the same parameters: a forward may store values from a run.
        part = twin(self.part(changed))
        try:
            with eagerly(part):
                prove(part, {site.key: site.module for site in plan.sites}, self._inputs(changed).two)
        except SesurgeryError:
            raise
        except Exception as error:
            text = f"the network with its blocks cannot be differentiated: {described(error)}"
            raise fail("SE404", text, "name a part of it as 'submodule', or leave parts out with 'except'") from error
