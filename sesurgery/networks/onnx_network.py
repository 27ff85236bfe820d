"""An open network that is an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import onnx
from torch import nn

from sesurgery.accounting import Account, Cost
from sesurgery.counting import Convention
from sesurgery.diagnostics import fail
from sesurgery.graph import Shape
from sesurgery.networks.onnx_cost import cost
from sesurgery.networks.opened import Drawn
from sesurgery.planner import Plan
from sesurgery.surgeons.base import Outline, Weights
from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

SHAPE_KEY: Mapping[str, tuple[str, ...]] = {"SE304": ("input", "shape")}
NAMED_KEYS: Mapping[str, tuple[str, ...]] = {**SHAPE_KEY, "SE402": ("model", "name"), "SE602": ("model", "name")}
"""Of the file that the spec itself names."""


@dataclass(frozen=True, eq=False)
class OnnxNetwork(Drawn):
    """The model of a file; values that lie beside the file need not be loaded.

    `told` is called while blocks are made, with the number of those that are ready, and that of all.
    """

    model: onnx.ModelProto
    shape: Shape
    assumed: bool = False
    named: bool = False
    """Whether the spec itself names the file."""
    told: Callable[[int, int], None] | None = None

    head: ClassVar[None] = None

    @property
    def keys(self) -> Mapping[str, tuple[str, ...]]:
        return NAMED_KEYS if self.named else SHAPE_KEY

    @cached_property
    def cost(self) -> Cost:
        return cost(self.model, self.shape)

    def account(self, convention: Convention = "torch") -> Account:
        text = "a network in an ONNX file has no modules to account for"
        raise fail("SE302", text, "name the network that the file was exported from")

    def apply(self, plan: Plan, weights: Weights | None = None) -> Self:
        return replace(self, model=self._surgeon.apply(self.model, plan, weights))

    def require_module(self, why: str, instead: str) -> nn.Module:
        raise fail("SE302", why, instead)

    def calling(self, parts: tuple[str, ...]) -> Self:
        return self

    def notes(self, changed: OnnxNetwork) -> tuple[str, ...]:
        """What surgery did to the file beside inserting and removing."""
        return self._surgeon.notes(self.model, changed.model)

    @cached_property
    def outline(self) -> Outline:
        return self._surgeon.look(self.model)

    @cached_property
    def _surgeon(self) -> OnnxSurgeon:
        return OnnxSurgeon(self.shape, self.told)
