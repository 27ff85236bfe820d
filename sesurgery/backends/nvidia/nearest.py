"""Which optimisation profile of an engine takes given shapes: of those that fit, the one tuned for the nearest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sesurgery.backends.nvidia.loaded import Bounds, Shape
from sesurgery.diagnostics import Diagnostic, SesurgeryError


def nearest(shapes: Mapping[str, Shape], profiles: Sequence[Mapping[str, Bounds]]) -> int:
    """The number of the profile; raises SE606 with the ranges of all if none takes these shapes."""
    fitting = [
        number
        for number, bounds in enumerate(profiles)
        if all(_within(shape, bounds[name]) for name, shape in shapes.items())
    ]
    if not fitting:
        raise SesurgeryError([_outside(shapes, profiles)])
    return min(fitting, key=lambda number: _distance(shapes, profiles[number]))


def _outside(shapes: Mapping[str, Shape], profiles: Sequence[Mapping[str, Bounds]]) -> Diagnostic:
    given = ", ".join(f"input {name!r} of shape {list(shape)}" for name, shape in shapes.items())
    known = "; ".join(
        f"profile {number + 1}: "
        + ", ".join(f"{name!r} from {list(low)} to {list(high)}" for name, (low, _, high) in bounds.items())
        for number, bounds in enumerate(profiles)
    )
    return Diagnostic("SE606", f"no profile of the engine takes {given}", hint=known)


def _within(shape: Shape, bounds: Bounds) -> bool:
    return all(low <= size <= high for low, size, high in zip(bounds[0], shape, bounds[2], strict=True))


def _distance(shapes: Mapping[str, Shape], bounds: Mapping[str, Bounds]) -> float:
    return sum(
        abs(math.log(size / best))
        for name, shape in shapes.items()
        for size, best in zip(shape, bounds[name][1], strict=True)
    )
