"""The contract of a preset: values for the section `train:`, which the spec's own keys override."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

Values = dict[str, Any]


class Preset(ABC):
    """A whole recipe. Subclasses are frozen dataclasses; their values are validated like a spec.

    `epochs` and `batch_size` are the published ones. If the spec has others, `values` adapts steps and learning rates.
    """

    epochs: ClassVar[int]
    batch_size: ClassVar[int]

    @abstractmethod
    def values(self, epochs: int, batch_size: int) -> Values:
        """The section `train:` for this number of epochs and this batch size."""

    def beneath(self, given: Mapping[str, Any]) -> Values:
        """The section `train:`; the keys that the spec has `given` override the preset's."""
        epochs, batch = _count(given, "epochs", self.epochs), _count(given, "batch_size", self.batch_size)
        batch *= _count(given, "accumulate", 1)
        sizes = {"epochs": self.epochs, "batch_size": self.batch_size}
        return _merged({**sizes, **self.values(epochs, batch)}, given)


def linear(rate: float, of: int, batch_size: int) -> float:
    """A learning rate for batches `of` this size, scaled linearly to another size (arXiv 1706.02677 section 2.1)."""
    return _short(rate * batch_size / of)


def root(rate: float, of: int, batch_size: int) -> float:
    """The same for Adam and LAMB, scaled with the square root (arXiv 1904.00962 section 4.3)."""
    return _short(rate * (batch_size / of) ** 0.5)


def _short(rate: float) -> float:
    return float(f"{rate:.4g}")


def _count(given: Mapping[str, Any], key: str, default: int) -> int:
    # A value that is not a count is reported by the spec's validation.
    value = given.get(key)
    return value if isinstance(value, int) and value > 0 else default


def _merged(beneath: Mapping[str, Any], above: Mapping[str, Any]) -> Values:
    merged = {**beneath, **above}
    for key, value in above.items():
        under = beneath.get(key)
        if not isinstance(under, Mapping) or not isinstance(value, Mapping):
            continue
        # Options of one optimiser do not apply to another.
        if value.get("name", under.get("name")) == under.get("name"):
            merged[key] = _merged(under, value)
    return merged
