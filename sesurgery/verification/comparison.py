"""Compare two trainings: which is right more often on the same samples, and which reached an accuracy earlier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sesurgery.training.history import Epoch
from sesurgery.verification.paired import Gain, McNemar, gain, mcnemar

Verdict = Literal["better", "worse", "not told apart"]


@dataclass(frozen=True)
class Comparison:
    """The first run compared with the second.

    `difference` is a share of the held-out samples (0.01 = one point). `epochs_to` are the epochs after which each run
    first reached `accuracy`, None if it never did. Without an accuracy (a run has no epochs) both are None.
    """

    samples: int
    top1: tuple[float, float]
    difference: Gain
    mcnemar: McNemar
    accuracy: float | None
    epochs_to: tuple[int | None, int | None]
    verdict: Verdict


def compare(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    epochs: tuple[Sequence[Epoch], Sequence[Epoch]],
    accuracy: float | None = None,
) -> Comparison:
    """Compare correct predictions [samples]; the default `accuracy` is the highest that both trainings reached."""
    test = mcnemar(first, second)
    difference = gain(first[None], second[None])
    wanted = reached_by_both(*epochs) if accuracy is None else accuracy
    return Comparison(
        samples=len(first),
        top1=(float(first.mean()), float(second.mean())),
        difference=difference,
        mcnemar=test,
        accuracy=wanted,
        epochs_to=(epochs_to(wanted, epochs[0]), epochs_to(wanted, epochs[1])),
        verdict=verdict(test, 1 - difference.confidence),
    )


def verdict(test: McNemar, level: float) -> Verdict:
    """The verdict on the first run at this level of significance."""
    if test.p >= level:
        return "not told apart"
    return "better" if test.first_only > test.second_only else "worse"


def epochs_to(accuracy: float | None, epochs: Sequence[Epoch]) -> int | None:
    """The first epoch whose held-out top-1 is at least `accuracy`."""
    if accuracy is None:
        return None
    return next((epoch.epoch for epoch in epochs if epoch.held_out_top1 >= accuracy), None)


def reached_by_both(first: Sequence[Epoch], second: Sequence[Epoch]) -> float | None:
    """The lower of the two trainings' best held-out top-1; None if one has no epoch."""
    if not first or not second:
        return None
    return min(max(epoch.held_out_top1 for epoch in epochs) for epochs in (first, second))
