"""Layers that need not compute twice: a graph in a forward's place calls the same ones, mostly on the same values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sesurgery.surgeons.fx.regions import region

_PURE = (nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers that draw nothing and write nothing, and take most of a network's time."""


@dataclass(frozen=True)
class _Call:
    """A call of a layer: what it was given, in which modes, and what it gave."""

    value: Tensor
    modes: tuple[Any, ...]
    output: Tensor
    version: int

    def gives(self, value: Tensor, modes: tuple[Any, ...]) -> bool:
        """Whether its output is that of a call with this value; not once somebody has written to the output."""
        return modes == self.modes and self.output._version == self.version and torch.equal(value, self.value)


class Memory:
    """The calls of layers while modules run, and their outputs while a graph runs in a module's place."""

    def __init__(self) -> None:
        self._learns = self._serves = False
        self._calls: dict[nn.Module, list[_Call]] = {}
        self._next: dict[nn.Module, int] = {}

    def learn(self, on: bool) -> None:
        """Begin to note calls, or forget them all."""
        self._learns = on
        if not on:
            self._calls.clear()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Within it a layer's n-th call gives the output of the n-th call that was noted, if that was on its value."""
        self._serves, self._next = True, {}
        try:
            yield
        finally:
            self._serves = False

    @contextlib.contextmanager
    def of(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Within it the plain layers among these modules are remembered."""
        layers = [module for module in modules if type(module) in _PURE and _is_bare(module)]
        for layer in layers:
            layer.__dict__["forward"] = self._forward(layer, layer.forward)
        try:
            yield
        finally:
            for layer in layers:
                layer.__dict__.pop("forward", None)

    def _forward(self, layer: nn.Module, own: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(*args: Any, **kwargs: Any) -> Tensor:
            plain = len(args) == 1 and not kwargs and type(args[0]) is Tensor
            if not plain or not (self._serves or self._learns):
                return own(*args, **kwargs)
            value: Tensor = args[0]
            modes = (region(), value.requires_grad, value.dtype, value.device)
            if self._serves:
                number = self._next[layer] = self._next.get(layer, -1) + 1
                known = self._calls.get(layer, ())
                # A copy: the graph may write to it, and the module's own output may still be read.
                serves = number < len(known) and known[number].gives(value, modes)
                return known[number].output.clone() if serves else own(value)
            output = own(value)
            if not output.is_inference():
                self._calls.setdefault(layer, []).append(_Call(value, modes, output, output._version))
            return output

        return forward


def _is_bare(module: nn.Module) -> bool:
    """Whether nothing but its class says what a call of it does."""
    return "forward" not in vars(module) and not (module._forward_hooks or module._forward_pre_hooks)
