"""Is one network right more often than another? Paired comparison on the same samples.

The interval is the adjusted Wald interval for paired proportions (Bonett and Price, JEBS 37, 2012). It adds two
samples, one that only the first network gets right and one that only the second does, so the interval is not empty if
the networks always agree. With several trainings of each network, a sample counts with the mean of its differences; the
interval is over the samples, for these trainings.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Gain:
    """The difference in accuracy of two networks as a share (0.01 = one point), with its interval."""

    value: float
    low: float
    high: float
    confidence: float
    samples: int
    trainings: int

    @property
    def includes_zero(self) -> bool:
        return self.low <= 0 <= self.high


def gain(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], confidence: float = 0.95) -> Gain:
    """The gain of the network whose right answers are `ours`, each [trainings, samples], over that of `theirs`."""
    if ours.shape != theirs.shape or ours.ndim != 2 or ours.size == 0:
        raise ValueError(f"expected two arrays [trainings, samples], found {ours.shape} and {theirs.shape}")
    differences = (ours.astype(float) - theirs.astype(float)).mean(0)
    count = len(differences) + 2
    middle = differences.sum() / count
    spread = np.sqrt(((differences**2).sum() + 2) / count - middle**2)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * spread / np.sqrt(count)
    return Gain(
        value=float(differences.mean()),
        low=float(max(-1, middle - reach)),
        high=float(min(1, middle + reach)),
        confidence=confidence,
        samples=len(differences),
        trainings=len(ours),
    )


@dataclass(frozen=True)
class McNemar:
    """Samples that only the first gets right, those that only the second does, and the exact two-sided p-value."""

    first_only: int
    second_only: int
    p: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """McNemar's exact test (Psychometrika 12, 1947) on correct predictions [samples] for the same samples."""
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise ValueError(f"expected two arrays [samples], found {first.shape} and {second.shape}")
    # Importing scipy takes a tenth of a second, which other verbs do not need.
    from scipy.special import bdtr

    ahead, behind = int((first & ~second).sum()), int((second & ~first).sum())
    p = 2 * float(bdtr(min(ahead, behind), ahead + behind, 0.5)) if ahead + behind else 1.0
    return McNemar(ahead, behind, min(1.0, p))
