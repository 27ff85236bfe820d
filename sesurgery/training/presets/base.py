"""What a preset is: values for the section `train:`, beneath what the spec itself says there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

Values = dict[str, Any]


class Preset(ABC):
    """A whole recipe. Subclasses are frozen dataclasses; what they give is checked as a spec is.

    `epochs` and `batch_size` are those that it was published with. Where the spec has others, `values` fits drops and
    rates to them.
    """

    epochs: ClassVar[int]
    batch_size: ClassVar[int]

    @abstractmethod
    def values(self, epochs: int, batch_size: int) -> Values:
        """What stands under `train:` for training so long with batches of so many samples."""

    def beneath(self, given: Mapping[str, Any]) -> Values:
        """The section `train:` where `given` is what the spec says of it: that goes first, key by key."""
        epochs, batch = _count(given, "epochs", self.epochs), _count(given, "batch_size", self.batch_size)
        batch *= _count(given, "accumulate", 1)
        sizes = {"epochs": self.epochs, "batch_size": self.batch_size}
        return _merged({**sizes, **self.values(epochs, batch)}, given)


def linear(rate: float, of: int, batch_size: int) -> float:
    """The rate that was found with batches `of` so many, for others (arXiv 1706.02677 section 2.1)."""
    return _short(rate * batch_size / of)


def root(rate: float, of: int, batch_size: int) -> float:
    """The same for Adam, LAMB and their like, with the square root (arXiv 1904.00962 section 4.3)."""
    return _short(rate * (batch_size / of) ** 0.5)


def _short(rate: float) -> float:
    return float(f"{rate:.4g}")


def _count(given: Mapping[str, Any], key: str, default: int) -> int:
    # What is no count is named by the spec's own check.
    value = given.get(key)
    return value if isinstance(value, int) and value > 0 else default


def _merged(beneath: Mapping[str, Any], above: Mapping[str, Any]) -> Values:
    merged = {**beneath, **above}
    for key, value in above.items():
        under = beneath.get(key)
        if not isinstance(under, Mapping) or not isinstance(value, Mapping):
            continue
        # The options of one optimiser are not those of another.
        if value.get("name", under.get("name")) == under.get("name"):
            merged[key] = _merged(under, value)
    return merged
