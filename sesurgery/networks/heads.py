"""The classifier of a network whose classes are others than those of the weights it is given: that part stays fresh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn


class OtherClassesError(ValueError):
    """Pretrained values are of other classes, and more than a head would have to stay fresh."""


@dataclass(frozen=True)
class NewHead:
    """The layers that stay as initialised, how many classes they give, and how many the weights `of` a place have."""

    layers: tuple[str, ...]
    classes: int
    before: int
    of: str = ""

    def __str__(self) -> str:
        layers = ", ".join(self.layers)
        return f"the classifier ({layers}) is new: {self.classes} classes, {self.of} has {self.before}"


def new_head(own: nn.Module, state: Mapping[str, Tensor], of: str) -> NewHead | None:
    """The head that a state dict does not fit by its number of classes alone; None if shapes differ otherwise, or fit.

    It is the last linear layer or convolution of the network, with those before it, as beside auxiliary outputs, whose
    outputs are as many.
    """
    tensors = own.state_dict()
    other = {key for key in tensors if key in state and tensors[key].shape != state[key].shape}
    layers = [name for name, module in own.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    heads = tuple(name for name in layers if _key(name, "weight") in other)
    if not heads or heads[-1] != layers[-1] or not other <= {_key(name, of) for name in heads for of in _PARAMETERS}:
        return None
    if any(tensors[key].shape[1:] != state[key].shape[1:] or not state[key].ndim for key in other):
        return None
    counts = {(len(tensors[key]), len(state[key])) for key in other}
    if len(counts) != 1:
        return None
    ((classes, before),) = counts
    return NewHead(heads, classes, before, of)


def without_head(state: Mapping[str, Tensor], head: NewHead) -> dict[str, Tensor]:
    """A state dict without the values of that head."""
    gone = {_key(name, parameter) for name in head.layers for parameter in _PARAMETERS}
    return {key: value for key, value in state.items() if key not in gone}


_PARAMETERS = ("weight", "bias")


def _key(name: str, parameter: str) -> str:
    return f"{name}.{parameter}" if name else parameter
