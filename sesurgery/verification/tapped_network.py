"""A torch network whose single output is its logits followed by the outputs of some of its modules.

Backends that build from the network itself take networks with one output. The values are flattened and concatenated, so
the rest of the network stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sesurgery.backends.base import Array, Runner
from sesurgery.verification.taps import Tap


class TappedNetwork(nn.Module):
    """`network`, with the outputs of the modules at these paths appended to its output."""

    def __init__(self, network: nn.Module, modules: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.modules_watched = tuple(modules)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: dict[str, torch.Tensor] = {}

        def watch(name: str) -> torch.utils.hooks.RemovableHandle:
            def keep(_: nn.Module, given: object, made: torch.Tensor) -> None:
                # A copy, because the next operation may change the map in place, and a channels-last map has no flat
                # view.
                found[name] = made.clone(memory_format=torch.contiguous_format).flatten(1)

            return self.network.get_submodule(name).register_forward_hook(keep)

        handles = [watch(name) for name in self.modules_watched]
        try:
            logits: torch.Tensor = self.network(images)
        finally:
            for handle in handles:
                handle.remove()
        return torch.cat([logits, *(found[name] for name in self.modules_watched)], 1)

    def widths(self, shape: tuple[int, int, int]) -> tuple[tuple[int, ...], ...]:
        """The shapes [C, H, W] of the appended values, in order."""
        found: dict[str, tuple[int, ...]] = {}
        handles = [
            self.network.get_submodule(name).register_forward_hook(
                lambda _, given, made, name=name: found.update({name: tuple(made.shape[1:])})
            )
            for name in self.modules_watched
        ]
        with torch.inference_mode():
            self.network.eval()(torch.zeros(1, *shape))
        for handle in handles:
            handle.remove()
        return tuple(found[name] for name in self.modules_watched)


class TappedRunner(Runner):
    """A runner for such a network; its outputs are named after the taps, the last of which is the logits."""

    def __init__(self, runner: Runner, taps: Sequence[Tap], shapes: Sequence[tuple[int, ...]]) -> None:
        self._runner, self._taps, self._shapes = runner, tuple(taps), tuple(shapes)
        self.inputs, self.outputs = runner.inputs, runner.outputs

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        (flat,) = self._runner.infer(feeds).values()
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        logits = flat.shape[1] - sum(sizes)
        parts = np.split(flat, np.cumsum([logits, *sizes])[:-1], axis=1)
        found: dict[str, Array] = {self._taps[-1].value: parts[0]}
        for tap, part, shape in zip(self._taps[:-1], parts[1:], self._shapes, strict=True):
            found[tap.value] = part.reshape(len(part), *shape)
        return found

    def time(self, feeds: Mapping[str, Array], repeats: int) -> NDArray[np.float64]:
        return self._runner.time(feeds, repeats)

    def close(self) -> None:
        self._runner.close()
