"""Ranges of input shapes, and the words for them: `input=1,8,32x3x224x224`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

SEPARATORS = re.compile(r"[;\s]+")


@dataclass(frozen=True)
class ShapeRange:
    """Shapes an input must take: smallest, the one it is tuned for, largest; all of one rank."""

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]

    def __str__(self) -> str:
        sizes = zip(self.minimum, self.optimum, self.maximum, strict=True)
        return "x".join(str(low) if low == high else f"{low},{best},{high}" for low, best, high in sizes)


Profile = Mapping[str, ShapeRange]
"""The shapes of the inputs that are named; of any other the batch alone is dynamic."""


def parse_profile(text: str) -> dict[str, ShapeRange]:
    """`a=1,8,32x3x224x224; b=1x10` -> ranges by input: one size a dimension, or smallest, best, largest.

    Raises ValueError that says which part is wrong.
    """
    profile: dict[str, ShapeRange] = {}
    for part in SEPARATORS.split(text.strip()):
        name, equals, sizes = part.rpartition("=")
        if not equals or not name:
            raise ValueError(f"expected INPUT=SHAPE, found {part!r}")
        if name in profile:
            raise ValueError(f"input {name!r} is given twice")
        profile[name] = _range(sizes)
    return profile


def _range(text: str) -> ShapeRange:
    dimensions = []
    for part in text.split("x"):
        try:
            sizes = tuple(int(size) for size in part.split(","))
        except ValueError:
            raise ValueError(f"expected sizes like 1,8,32x3x224x224, found {text!r}") from None
        if len(sizes) not in (1, 3):
            raise ValueError(f"expected one size or smallest,best,largest, found {part!r} in {text!r}")
        low, best, high = sizes if len(sizes) == 3 else sizes * 3
        if not 1 <= low <= best <= high:
            raise ValueError(f"sizes must rise from at least 1, found {part!r} in {text!r}")
        dimensions.append((low, best, high))
    minimum, optimum, maximum = zip(*dimensions, strict=True)
    return ShapeRange(minimum, optimum, maximum)
