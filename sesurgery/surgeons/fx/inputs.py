"""The arguments of a forward, for two batch sizes: an image, or what a part of a network was called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from sesurgery.graph import Shape

BATCHES = (2, 3)


@dataclass(frozen=True)
class Given:
    """The arguments of one call."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None

    def bound(self, signature: inspect.Signature) -> dict[str, Any]:
        """The arguments by the names of a forward's parameters; its defaults are left out."""
        return dict(signature.bind(*self.args, **(self.kwargs or {})).arguments)


@dataclass(frozen=True)
class Inputs:
    """Two calls that differ in their batch alone: what differs between them follows from the batch."""

    two: Given
    three: Given


def image_inputs(network: nn.Module, shape: Shape) -> Inputs:
    """Images (or clips) of `shape` for the forward's first parameter, in the network's dtype."""
    like = next((part for part in network.parameters() if part.is_floating_point()), torch.empty(0))
    two, three = (Given((torch.empty(batch, *shape, dtype=like.dtype, device=like.device),)) for batch in BATCHES)
    return Inputs(two, three)


def map_dims(inputs: Inputs) -> int:
    """The dimensions of the network's maps, as those of what it is given: five for clips, otherwise four."""
    given = tensors((inputs.two.args, dict(inputs.two.kwargs or {})))
    return next((tensor.dim() for tensor in given if tensor.dim() in (4, 5)), 4)


def tensors(value: object) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors(item)


def is_list_of_images(value: object) -> TypeGuard[list[Tensor]]:
    """Whether it is what torchvision's detectors take in place of a batch: a list of images [C, H, W]."""
    items = value if isinstance(value, list) else []
    return bool(items) and all(isinstance(item, Tensor) and item.dim() == 3 for item in items)


def listed_image(value: object) -> Tensor | None:
    """The first image of the first list of images in it."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if is_list_of_images(value):
        return value[0]
    items = value if isinstance(value, tuple | list) else ()
    return next((image for item in items if (image := listed_image(item)) is not None), None)


def mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The nested value with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(item, change) for item in value))
    if isinstance(value, tuple | list):
        return type(value)([mapped(item, change) for item in value])
    if type(value) is dict:
        return {key: mapped(item, change) for key, item in value.items()}
    return value
