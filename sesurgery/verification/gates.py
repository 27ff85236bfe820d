"""What a block's gates do over samples: the method of the SE paper's figures 6 and 7 (arXiv 1709.01507, section 7.2).

A gate is dead where it is closed for every sample, saturated where it is wide open for every sample, and constant where
it is the same for every sample, whatever it is. How much it looks at is told by the share of its variance that lies
between classes: of gates that do not know the class, about (classes - 1) / (samples - 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLOSED, OPEN = 0.05, 0.95
"""Shares of a gate's range below and above which it counts as closed and as wide open."""
BOUND = 0.01
"""The pass constant_gates folds gates that stay this close to the middle of what they were."""

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
    """A block's gates over all samples; counts are of channels, `between_class` is a share of the variance, 0 to 1.

    `unseen` channels were zero on every sample: what their gates are does not show, and nothing else counts them.
    `constant_within` is the most that any channel is away from the middle of its range; None of `saturated`: the gate
    has no upper end.
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


def measure(
    key: str, values: Values, labels: NDArray[np.int64], names: Mapping[int, str], highest: float | None
) -> BlockGates:
    """The statistics of gates [N, C] with the class of each sample [N]; `highest` is the upper end of the gate's range.

    NaN stands where a gate could not be seen; some are. `std` is the mean over channels of the deviation over samples.
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


def _count(which: Any) -> int:
    return int(np.ma.filled(which, False).sum())


def _curve(values: Any) -> tuple[float, ...]:
    """One number a channel, NaN where no sample shows it."""
    return tuple(np.ma.filled(values, np.nan).tolist())


def _between(values: Any, labels: NDArray[np.int64]) -> float:
    """Sum of squares between classes over all of it, channels added up; 0 where nothing varies."""
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
        return "look: every channel is closed or wide open for every sample"
    if 2 * dead >= channels:
        return "look: half of the channels or more are closed for every sample"
    return "keep"
