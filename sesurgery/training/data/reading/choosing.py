"""Which samples: a seeded part of a split, or a seeded share of every class. The same on every machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


def part(total: int, wanted: int | None, seed: int) -> Positions:
    """`wanted` positions of `total` in ascending order, or all of them."""
    if wanted is None or wanted >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).permutation(total)[:wanted])


def shared(targets: Sequence[int] | NDArray[np.int64], share: float, seed: int) -> tuple[Positions, Positions]:
    """Positions to train on and those held out: `share` of every class, at least one and never all of several."""
    labels = np.asarray(targets)
    order = np.random.default_rng(seed).permutation(len(labels))
    held_out = []
    for index in np.unique(labels):
        own = order[labels[order] == index]
        held_out.append(own[: min(max(1, round(share * len(own))), max(1, len(own) - 1))])
    chosen = np.concatenate(held_out) if held_out else np.arange(0)
    return np.setdiff1d(np.arange(len(labels)), chosen), np.sort(chosen)
