"""An engine's predictions and the trained model's: accuracies with intervals, McNemar's test, KL divergence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sesurgery.verification.paired import McNemar, mcnemar
from sesurgery.verification.proportions import Share, share, wilson

Floats = NDArray[np.float64]
MOST = 5
"""The k of top-5."""


@dataclass(frozen=True)
class Answers:
    """Shares of the samples with Wilson's 95 % intervals, and McNemar's exact test of which is right more often.

    In the test, `first_only` counts samples that only the model classifies correctly, `second_only` those that only the
    engine does. `top5_overlap` is the mean share of the model's five top classes that are among the engine's. Its
    interval is Wilson's as if each sample had all five or none, which is the most that a mean can vary; None if an
    earlier version measured.
    """

    agreement: Share
    reference_top1: Share
    candidate_top1: Share
    reference_top5: Share
    candidate_top5: Share
    top5_overlap: float
    mcnemar: McNemar
    top5_overlap_interval: tuple[float, float] | None = None


def compare_answers(
    trained: Floats, engine: Floats, labels: NDArray[np.generic], expected: NDArray[np.intp], given: NDArray[np.intp]
) -> Answers:
    """Compare logits [N, classes] given labels [N]; `expected` and `given` are the predicted classes, -1 for none."""
    samples = len(labels)
    before, after = _best(trained), _best(engine)
    answered = (given >= 0)[:, None]
    hits_before = (before == labels[:, None]).any(1)
    hits_after = ((after == labels[:, None]) & answered).any(1)
    common = float(((before[:, :, None] == after[:, None, :]).any(2) & answered).mean())
    right_before, right = expected == labels, given == labels
    return Answers(
        agreement=share(int((expected == given).sum()), samples),
        reference_top1=share(int(right_before.sum()), samples),
        candidate_top1=share(int(right.sum()), samples),
        # With equal logits the first class counts for top-1, whichever the sort returns.
        reference_top5=share(int((hits_before | right_before).sum()), samples),
        candidate_top5=share(int((hits_after | right).sum()), samples),
        top5_overlap=common,
        mcnemar=mcnemar(right_before, right),
        top5_overlap_interval=wilson(common * samples, samples),
    )


def divergences(trained: Floats, engine: Floats, finite: NDArray[np.bool_]) -> Floats:
    """KL divergence in nats of the engine's softmax from the model's, per sample; infinite for NaN and infinity."""
    found = np.full(len(trained), np.inf)
    before, after = _log_softmax(trained[finite]), _log_softmax(engine[finite])
    # Rounding can make the sum slightly negative for equal distributions.
    found[finite] = np.maximum((np.exp(before) * (before - after)).sum(1), 0.0)
    return found


def _best(logits: Floats) -> NDArray[np.intp]:
    most = min(MOST, logits.shape[1])
    return np.argsort(-np.nan_to_num(logits, nan=-np.inf), axis=1, kind="stable")[:, :most]


def _log_softmax(rows: Floats) -> Floats:
    shifted = rows - rows.max(axis=1, keepdims=True, initial=-np.inf)
    logged: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logged
