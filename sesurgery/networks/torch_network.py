"""An open network that is a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

from torch import nn

from sesurgery.accounting import Account, Cost, account, cost
from sesurgery.counting import Convention
from sesurgery.diagnostics import SesurgeryError
from sesurgery.graph import Shape
from sesurgery.networks.heads import NewHead
from sesurgery.networks.opened import Drawn
from sesurgery.networks.weights import WeightsFile
from sesurgery.planner import Plan
from sesurgery.spec import NamesModel, NamesSurgery
from sesurgery.surgeons.base import Outline, Weights
from sesurgery.surgeons.fx.inputs import Inputs
from sesurgery.surgeons.fx.proof import ANOTHER_PLACEMENT
from sesurgery.surgeons.fx.surgeon import FxSurgeon
from sesurgery.surgeons.fx.view import Drawing


@dataclass(frozen=True, eq=False)
class TorchNetwork(Drawn):
    """A module, or with `submodule` the part of it that is operated on, whose input then is of `shape`.

    `weights` is the file that its values came from: it may have values for the blocks that a plan inserts. `head` is
    the network's where that is of other classes than the file's or the pretrained network's. `called` are modules that
    are leaves whatever their forward. With `inputs` the network is called with these. `uncompared` says where it was
    not proved that surgery kept the network's function.
    """

    module: nn.Module
    shape: Shape
    submodule: str = ""
    assumed: bool = False
    weights: WeightsFile | None = None
    head: NewHead | None = None
    called: tuple[str, ...] = ()
    inputs: Inputs | None = None
    uncompared: tuple[str, ...] = ()

    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "SE304": ("input", "shape"),
        "SE306": ("model", "submodule"),
        "SE403": ("model", "name"),
    }

    @cached_property
    def cost(self) -> Cost:
        return cost(self._surgeon().part(self.module), self.shape)

    def account(self, convention: Convention = "torch") -> Account:
        return account(self._surgeon().part(self.module), self.shape, convention)

    def plan(self, surgery: NamesSurgery) -> Plan:
        made = super().plan(surgery)
        return replace(made, called=self.called, warnings=(*self.warnings, *made.warnings))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is left alone because of `called`, and what could not be compared."""
        names = ", ".join(part or "the network itself" for part in self.called)
        alone = f"{names}: traced, it is another function; it is called as it is, with no block in it"
        return (*((alone,) if names else ()), *self.uncompared)

    def apply(self, plan: Plan, weights: Weights | None = None) -> Self:
        # Graphs of larger and of smaller modules may be compared one after the other: a text counts once.
        uncompared: dict[str, None] = {}
        try:
            drawn = self._drawing if plan.called == self.called else None
            surgeon = FxSurgeon(self.shape, self.submodule, self.inputs, uncompared.setdefault, drawn)
            changed = surgeon.apply(self.module, plan, weights)
        except SesurgeryError as error:
            found = {item.site for item in error.diagnostics if item.code == "SE404"}
            # Where other blocks do run, those that do not lie beside what makes the output: no part of it helps.
            if not found or not (None in found or found >= {site.key for site in plan.sites}):
                raise
            raise self._surgeon().with_parts(error, self.module, ANOTHER_PLACEMENT) from error
        if weights is None and self.weights is not None:
            self.weights.load_blocks(changed, plan, self.submodule)
        return replace(self, module=changed, uncompared=tuple(uncompared))

    def require_module(self, why: str, instead: str) -> nn.Module:
        return self.module

    def calling(self, parts: tuple[str, ...]) -> Self:
        more = tuple(part for part in parts if part not in self.called)
        return replace(self, called=(*self.called, *more)) if more else self

    @property
    def outline(self) -> Outline:
        return self._drawing.outline

    @cached_property
    def _drawing(self) -> Drawing:
        return self._surgeon().drawing(self.module, self.called)

    def _surgeon(self) -> FxSurgeon:
        return FxSurgeon(self.shape, self.submodule, self.inputs)


def usual_shape(given: NamesModel, module: nn.Module) -> Shape | None:
    """The input that a network was made for, by its own account or by that of its published weights."""
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None) or {}
    if (size := config.get("input_size")) is not None:
        return int(size[0]), int(size[1]), int(size[2])
    if given.model.source == "huggingface":
        size, channels = (getattr(getattr(module, "config", None), key, None) for key in ("image_size", "num_channels"))
        return (channels or 3, size, size) if isinstance(size, int) else None
    if given.model.source == "ultralytics":
        # The sizes that Ultralytics trains at unless it is told another.
        trained_at = 224 if type(module).__name__ == "ClassificationModel" else 640
        return assumed_shape(module)[0], trained_at, trained_at
    if given.model.source != "torchvision":
        return None
    from torchvision.models import get_model_weights

    published = next(iter(get_model_weights(given.model.name)), None)
    side = getattr(published and published.transforms, "keywords", {}).get("crop_size")
    return (3, side, side) if isinstance(side, int) else None


def assumed_shape(module: nn.Module) -> Shape:
    """What most networks take, with as many channels as the first convolution."""
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    return (first.in_channels if first else 3), 224, 224
