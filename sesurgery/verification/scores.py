"""Scores of a classifier: top-k accuracy, loss, calibration, accuracy per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sesurgery.verification.proportions import wilson

BINS = 15


@dataclass(frozen=True)
class ClassScore:
    """A class's samples and the share classified correctly; None if it has no sample."""

    name: str
    samples: int
    top1: float | None


@dataclass(frozen=True)
class Scores:
    """Shares between 0 and 1 and the mean cross-entropy in nats, over all samples.

    With fewer classes, `top3` and `top5` are over all of them. `ece` is the expected calibration error; `top1_interval`
    is Wilson's at 95 %.
    """

    samples: int
    correct: int
    top1: float
    top3: float
    top5: float
    loss: float
    ece: float
    top1_interval: tuple[float, float]
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...] = ()
    """Samples by true class (rows) and answer (columns)."""


def scores(logits: torch.Tensor, labels: torch.Tensor, names: Sequence[str]) -> Scores:
    """Scores of logits [N, classes] against labels [N] int64; `names` are the classes' in the order of the labels."""
    samples, width = logits.shape
    right = logits.argmax(1) == labels
    best = logits.topk(min(5, width), dim=1).indices == labels[:, None]
    # With equal logits, topk and argmax may choose different classes.
    top = {most: float((right | best[:, :most].any(1)).float().mean()) for most in (3, 5)}
    totals = torch.bincount(labels, minlength=len(names)).tolist()
    hits = torch.bincount(labels[right], minlength=len(names)).tolist()
    correct = int(right.sum())
    return Scores(
        samples=samples,
        correct=correct,
        top1=correct / samples,
        top3=top[3],
        top5=top[5],
        loss=float(F.cross_entropy(logits, labels)),
        ece=calibration_error(logits, right),
        top1_interval=wilson(correct, samples),
        classes=tuple(
            ClassScore(name, total, hit / total if total else None)
            for name, total, hit in zip(names, totals, hits, strict=True)
        ),
        confusion=_confusion(logits.argmax(1), labels, len(names)),
    )


def calibration_error(logits: torch.Tensor, right: torch.Tensor) -> float:
    """The expected calibration error over 15 bins of equal width (Guo et al., ICML 2017).

    The distance between mean confidence and accuracy in each bin, weighted by the number of samples.
    """
    sure = logits.softmax(1).amax(1).double()
    if not bool(torch.isfinite(sure).all()):
        return float("nan")
    bins = (sure * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, sure - right.double())
    return float(gaps.abs().sum() / len(sure))


def _confusion(answers: torch.Tensor, labels: torch.Tensor, count: int) -> tuple[tuple[int, ...], ...]:
    cells = torch.bincount(labels * count + answers, minlength=count * count)
    return tuple(tuple(row) for row in cells.reshape(count, count).tolist())
