"""Where along a network an engine starts to differ: the error at every tap, and the first over tolerance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sesurgery.verification.taps import Tap

Values = Mapping[str, NDArray[np.generic]]
Compute = Callable[[NDArray[np.float32]], Values]
"""Values by name, of images [n, C, H, W]."""
TOLERANCES = {"fp32": 1e-3, "fp16": 0.03, "bf16": 0.2, "int8": 0.3}
"""Largest error that a precision explains at any depth, with a margin, relative to the values' root mean square."""
TINY = 1e-30


@dataclass(frozen=True)
class TapError:
    """The error at a place: root mean square of the difference over that of the model's values, for the worst sample.

    It is infinite if the engine has NaN or infinity and the model has none. `largest` is the model's largest value
    there. `site` is the block's key, None for other places.
    """

    name: str
    scope: str
    site: str | None
    error: float
    largest: float
    nonfinite: int = 0


@dataclass(frozen=True)
class Drift:
    """The error at every place in order, and the tolerance; `how` says how it was measured."""

    errors: tuple[TapError, ...]
    tolerance: float
    how: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < math.inf:
            raise ValueError(f"the tolerance of a drift is a finite number above 0, found {self.tolerance}")

    @property
    def first(self) -> TapError | None:
        """The first place over tolerance; NaN counts as over it."""
        return next((each for each in self.errors if not each.error <= self.tolerance), None)

    @property
    def before(self) -> TapError | None:
        """The last place before it, where the engine is still right."""
        first = self.first
        place = self.errors.index(first) if first is not None else 0
        return self.errors[place - 1] if place else None

    @property
    def first_site(self) -> str | None:
        """The block at the first place over tolerance, or the first block after it; None if there is none."""
        first = self.first
        if first is None:
            return None
        behind = self.errors[self.errors.index(first) :]
        return next((each.site for each in behind if each.site is not None), None)


@dataclass(frozen=True)
class Repair:
    """A change of the spec that was tried: `change` has the new values by their paths.

    `failure` says what still fails; None if the engine built with the change met the tolerance.
    """

    what: str
    change: Mapping[str, Any]
    failure: str | None = None

    @property
    def worked(self) -> bool:
        return self.failure is None

    def __str__(self) -> str:
        return "; ".join(f"{place}: {json.dumps(value)}" for place, value in self.change.items())


def growth(
    taps: Sequence[Tap],
    found: Sequence[Tap],
    reference: Compute,
    candidate: Compute,
    images: Iterable[NDArray[np.float32]],
    tolerance: float,
    how: str = "",
) -> Drift:
    """The error at the places that both have; `taps` name the reference's values and `found` the candidate's.

    `images` yields batches [n, C, H, W]; only one batch is in memory at a time.
    """
    own = {tap.name: tap.value for tap in found}
    both = [tap for tap in taps if tap.name in own]
    errors, reaches, broken = np.zeros(len(both)), np.zeros(len(both)), np.zeros(len(both), int)
    for batch in images:
        wanted, given = reference(batch), candidate(batch)
        for place, tap in enumerate(both):
            error, reach, count = _apart(wanted[tap.value], given[own[tap.name]])
            errors[place] = max(errors[place], error)
            reaches[place] = max(reaches[place], reach)
            broken[place] += count
    return Drift(
        tuple(
            TapError(tap.name, tap.scope, tap.site, float(error), float(reach), int(count))
            for tap, error, reach, count in zip(both, errors, reaches, broken, strict=True)
        ),
        tolerance,
        how,
    )


def _apart(wanted: NDArray[np.generic], given: NDArray[np.generic]) -> tuple[float, float, int]:
    """The worst sample's relative error, the largest reference value, and the number of non-finite samples."""
    if wanted.shape != given.shape:
        return float("inf"), float(np.abs(wanted).max(initial=0.0)), 0
    before = wanted.reshape(len(wanted), -1).astype(np.float64)
    after = given.reshape(len(given), -1).astype(np.float64)
    fine = np.isfinite(before).all(1)
    lost = fine & ~np.isfinite(after).all(1)
    both = fine & ~lost
    if not both.any():
        return (float("inf") if lost.any() else 0.0), float(np.abs(before[fine]).max(initial=0.0)), int(lost.sum())
    # If a map is nearly zero for one sample, the scale is that of the other samples.
    scale = np.sqrt((before[both] ** 2).mean(1))
    apart = np.sqrt(((after[both] - before[both]) ** 2).mean(1)) / np.maximum(scale, max(0.1 * scale.mean(), TINY))
    error = float("inf") if lost.any() else float(apart.max())
    return error, float(np.abs(before[fine]).max(initial=0.0)), int(lost.sum())
