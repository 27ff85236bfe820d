"""Statistics of a block's gates over samples, as in figures 6 and 7 of the SE paper (arXiv 1709.01507, section 7.2).

A gate is dead if it is closed for every sample, saturated if it is fully open for every sample, and constant if it has
the same value for every sample. The share of its variance between classes shows how much it depends on the class; for
gates that do not, it is about (classes - 1) / (samples - 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLOSED, OPEN = 0.05, 0.95
"""Shares of a gate's range below and above which it counts as closed and as open."""
BOUND = 0.01
"""The default bound of the pass constant_gates."""

UNLABELLED = "all samples"
"""The one class of samples whose labels nobody knows."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class ClassGates:
    """The mean gate of every channel over the samples of a class, and its standard deviation."""

    name: str
    samples: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class BlockGates:
    """A block's gates over all samples; counts are channels, `between_class` is a share of the variance, 0 to 1.

    `unseen` channels were zero on every sample, so their gates are unknown and not counted elsewhere. `constant_within`
    is the largest distance of any channel from the middle of its range. `saturated` is None if the gate has no upper
    end.
    """

    key: str
    channels: int
    samples: int
    mean: float
    std: float
    between_class: float
    dead: int
    saturated: int | None
    constant: int
    unseen: int
    constant_within: float
    advice: str
    classes: tuple[ClassGates, ...]

    @property
    def idle(self) -> bool:
        """Whether every gate is the same for every sample, to within the bound of the pass constant_gates."""
        return self.constant_within <= BOUND


def measure(
    key: str, values: Values, labels: NDArray[np.int64], names: Mapping[int, str], highest: float | None
) -> BlockGates:
    """The statistics of gates [N, C] with the class of each sample [N]; `highest` is the upper end of the gate's range.

    Gates that could not be measured are NaN. `std` is the mean over channels of the standard deviation over samples.
    """
    seen = np.ma.masked_invalid(values)
    unseen = int(np.isnan(values).all(0).sum())
    half = (seen.max(0) - seen.min(0)) / 2
    top = 1.0 if highest is None else highest
    dead = _count((np.ma.abs(seen) < CLOSED * top).all(0))
    saturated = None if highest is None else _count((seen > OPEN * highest).all(0))
    constant = _count(half <= BOUND)
    within = float(half.max())
    return BlockGates(
        key=key,
        channels=values.shape[1],
        samples=len(values),
        mean=float(seen.mean()),
        std=float(seen.std(0).mean()),
        between_class=_between(seen, labels),
        dead=dead,
        saturated=saturated,
        constant=constant,
        unseen=unseen,
        constant_within=within,
        advice=_advice(values.shape[1] - unseen, dead, saturated or 0, within),
        classes=tuple(
            ClassGates(name, int(of.sum()), _curve(seen[of].mean(0)), _curve(seen[of].std(0)))
            for label, name in names.items()
            if (of := labels == label).any()
        ),
    )


def seen_end(values: Values) -> float | None:
    """The upper end of a gate whose code nobody knows: 1 unless a sample shows more, then none."""
    return 1.0 if np.nanmax(values) <= 1 + 1e-3 else None


def _count(which: Any) -> int:
    return int(np.ma.filled(which, False).sum())


def _curve(values: Any) -> tuple[float, ...]:
    """One number per channel, NaN if no sample has a value."""
    return tuple(np.ma.filled(values, np.nan).tolist())


def _between(values: Any, labels: NDArray[np.int64]) -> float:
    """Sum of squares between classes over the total, summed over channels; 0 if nothing varies."""
    centre = values.mean(0)
    total = float(((values - centre) ** 2).sum())
    if not total > 1e-12 * values.size:
        return 0.0
    groups = [values[labels == label] for label in np.unique(labels)]
    between = [np.ma.filled(group.count(0) * (group.mean(0) - centre) ** 2, 0.0).sum() for group in groups]
    return float(sum(between)) / total


def _advice(channels: int, dead: int, saturated: int, within: float) -> str:
    if within <= BOUND:
        return "fold: the same for every sample; the pass constant_gates takes it out"
    if dead + saturated == channels:
        return "look: every channel is closed or fully open for every sample"
    if 2 * dead >= channels:
        return "look: half of the channels or more are closed for every sample"
    return "keep"
