"""A torch network whose single output is its logits followed by the outputs of some of its modules.

Backends that build from the network itself take networks with one output. The values are flattened and concatenated, so
the rest of the network stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sesurgery.backends.base import Array, Runner
from sesurgery.verification.drift import Values
from sesurgery.verification.observe import watched
from sesurgery.verification.taps import Tap

SAME = 1e-3
"""Two computations of one value differ by at most this share of its largest number."""
TINY = 1e-30
INNER = "network"
"""The path of the network within the tapped one."""


def watchable(network: nn.Module, taps: Sequence[Tap], values: Values, images: NDArray[np.float32]) -> tuple[Tap, ...]:
    """The taps whose values are outputs of modules, each with that module as its scope, and the logits.

    `values` are the taps' values for `images` [n, C, H, W]. A value of a module's own `forward` is the output of the
    module if it ends with it; what is computed before that has no module of its own and is left out.
    """
    known = {name for name, _ in network.named_modules()}
    around = {tap.name: [name for name in _around(tap.scope) if name in known] for tap in taps[:-1]}
    given = _outputs(network, {name for names in around.values() for name in names}, torch.from_numpy(images))
    found = []
    for tap in taps[:-1]:
        same = (name for name in around[tap.name] if name in given and _same(values[tap.value], given[name]))
        if (module := next(same, None)) is not None:
            found.append(replace(tap, scope=module))
    return *found, taps[-1]


def _around(scope: str) -> Iterator[str]:
    while scope:
        yield scope
        scope = scope.rpartition(".")[0]


def _same(wanted: NDArray[np.generic], given: NDArray[np.generic]) -> bool:
    if wanted.shape != given.shape:
        return False
    before, after = wanted.astype(np.float64), given.astype(np.float64)
    reach = max(float(np.abs(before).max(initial=0.0)), TINY)
    return bool(np.abs(before - after).max(initial=0.0) <= SAME * reach)


def _outputs(network: nn.Module, modules: set[str], images: torch.Tensor) -> dict[str, NDArray[np.generic]]:
    """What the last call of each of these modules returns, if that is one tensor."""

    def copied(_: object, made: object) -> NDArray[np.generic] | None:
        # A copy, because the next operation may change the map in place.
        return made.detach().clone().numpy() if isinstance(made, torch.Tensor) else None

    with torch.inference_mode(), watched(network, {name: name for name in modules}, copied) as found:
        network.eval()(images)
    tensors = {name: [made for made in calls if made is not None] for name, calls in found.items()}
    return {name: calls[-1] for name, calls in tensors.items() if calls}


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

    def widths(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """The shapes [C, H, W] of the appended values, in order."""
        found = _outputs(self.network, set(self.modules_watched), torch.zeros(1, *shape))
        return tuple(found[name].shape[1:] for name in self.modules_watched)


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
