"""What lies unseen in the leaves of a drawing: convolutions on maps, and channel gates, counted by what they are given.

A leaf has no graph, so its gates are told by their layers: one after another, on single pixels, that end as wide as
they began.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.surgeons.base import Leaf
from sesurgery.surgeons.fx.captured import Captured
from sesurgery.surgeons.fx.inputs import tensors


def counted(
    network: nn.Module, leaves: Sequence[Leaf], drawn: Iterable[str], captured: Callable[[], Mapping[str, Captured]]
) -> Iterator[Leaf]:
    """The leaves with what is hidden in them, in no part that is `drawn` and in no leaf within; `captured` is slow."""
    apart = {*drawn, *(leaf.path for leaf in leaves)}
    for leaf in leaves:
        layers = dict(_own_layers(network, leaf.path, apart))
        if not any(_convolves(layer) for layer in layers.values()):
            yield leaf
            continue
        try:
            seen = captured()
        except SesurgeryError:  # the parts of what does not run are still there
            seen = {}
        small = {path: layer for path, layer in layers.items() if path in seen and _on_one_pixel(seen[path])}
        gates = sum(map(_is_gate, _runs(small, [path for path in seen if path in layers])))
        maps = sum(_convolves(layer) for path, layer in layers.items() if path not in small)
        yield dataclasses.replace(leaf, hidden=maps, gates=gates)


def _own_layers(network: nn.Module, path: str, apart: set[str]) -> Iterator[tuple[str, nn.Module]]:
    outer = f"{path}." if path else ""
    within = tuple(f"{other}." for other in apart if other != path and other.startswith(outer))
    for name, module in network.get_submodule(path).named_modules():
        where = f"{outer}{name}"
        if name and _is_layer(module) and where not in apart and not where.startswith(within):
            yield where, module


def _is_layer(module: nn.Module) -> bool:
    return _convolves(module) or isinstance(module, nn.Linear)


def _convolves(module: nn.Module) -> bool:
    # A scripted part of a network knows the name of the class that it was made from.
    scripted = isinstance(module, torch.jit.ScriptModule) and module.original_name in _CONVOLUTIONS
    return scripted or isinstance(module, nn.modules.conv._ConvNd)


_CONVOLUTIONS = frozenset({f"Conv{kind}{axes}d" for kind in ("", "Transpose") for axes in (1, 2, 3)})


def _on_one_pixel(call: Captured) -> bool:
    """Whether a layer is given one number per channel: [N, C], [N, C, 1, 1], or [N, 1, C] as ECA has it."""
    shape = next((tensor.shape for tensor in tensors((call.inputs.two.args, call.inputs.two.kwargs or {}))), ())
    return len(shape) in (2, 3) or (len(shape) > 3 and all(size == 1 for size in shape[2:]))


def _runs(small: Mapping[str, nn.Module], order: Sequence[str]) -> Iterator[list[nn.Module]]:
    """The stretches of layers on single pixels, in the order of the calls."""
    run: list[nn.Module] = []
    for path in order:
        if path in small:
            run.append(small[path])
            continue
        yield run
        run = []
    yield run


def _is_gate(run: Sequence[nn.Module]) -> bool:
    return bool(run) and (len(run) > 1 or _convolves(run[0])) and _widths(run[0])[0] == _widths(run[-1])[1]


def _widths(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    assert isinstance(layer, nn.modules.conv._ConvNd)
    return layer.in_channels, layer.out_channels
