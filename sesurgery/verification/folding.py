"""What it costs to take a block's gate for a constant: answers that flip, predicted and measured, and the time saved.

The prediction is made on training samples and is about held-out ones. Of `n` training samples some flip; Wilson's upper
end bounds their share, and the binomial quantile at that share bounds how many of the held-out samples flip. Each holds
with 97.5 %, both with 95 %. It takes held-out samples to be like training samples. They are not quite: a network is
surer of those that it was trained on, and flips fewer of them.

The time is predicted from the blocks' prices (`sesurgery.verification.cost`): what an engine takes longer for having a
block is what it saves by having it folded, where the constants go into weights. Prices come from engines without some
of the blocks and know nothing of the folded engine, which is raced for itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sesurgery.verification.cost import Prices
from sesurgery.verification.estimates import Tax
from sesurgery.verification.paired import Gain, McNemar, gain, mcnemar
from sesurgery.verification.proportions import Share, share
from sesurgery.workspace.measurements import Kind, OfWeights

LEVEL = 0.975
"""How surely each of the two bounds of a prediction holds."""
Answers = NDArray[np.intp]
"""The predicted class of each sample [N], or its sequence of classes [N, T]."""


@dataclass(frozen=True)
class Prediction:
    """How many training samples flip, and the most of `held_out` others that may (`most`, with 95 %)."""

    flips: Share
    held_out: int
    most: int

    def covers(self, measured: Share) -> bool:
        """Whether no more held-out answers flipped than it allows."""
        return measured.hits <= self.most


@dataclass(frozen=True)
class TimePrediction:
    """The time of an engine with blocks folded over its time as it is, minus one, as the blocks' prices foretell it."""

    value: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class BlockFold:
    """One block of a network whose gate is taken for a constant.

    `within` is the largest distance of any channel from the middle of its range, on the samples that decide. `measured`
    are the flips on held-out samples in the network of torch, None of a block that is not `folded`. `time` is what
    folding it alone is predicted to do to the engine's time, None where prices were not asked for.
    """

    key: str
    within: float
    folded: bool
    predicted: Prediction
    measured: Share | None
    time: TimePrediction | None = None


@dataclass(frozen=True)
class EngineFold:
    """An engine with all of `blocks` folded, against the same engine without; both answered every held-out sample.

    `top1` is that of the engine as it is and of the folded one, `difference` the folded one's gain. In `mcnemar` the
    first is the folded one. `latency` is its time over the other's minus one: below zero where it is faster. `others`
    counts folded gates outside our blocks, which no prediction knows. `time` predicts `latency`, None where prices were
    not asked for.
    """

    blocks: tuple[str, ...]
    others: int
    predicted: Prediction
    measured: Share
    top1: tuple[float, float]
    difference: Gain
    mcnemar: McNemar
    latency: Tax
    doubt: str | None
    time: TimePrediction | None = None

    @property
    def time_as_predicted(self) -> bool | None:
        """Whether predicted and measured time agree within the error of the two; None where nothing was predicted."""
        if self.time is None:
            return None
        reach = math.hypot(*((each.high - each.low) / 2 for each in (self.time, self.latency)))
        return abs(self.latency.value - self.time.value) <= reach

    @property
    def as_predicted(self) -> bool:
        """Whether no more held-out answers flipped than the prediction allows; top-1 changes by no more than these."""
        return self.predicted.covers(self.measured)


@dataclass(frozen=True)
class Folding:
    """Each block's fold, and that of an engine of `backend` and `precision`; None where no block may be folded.

    `deciding` names the samples on which a gate is constant within `bound`. Predictions rest on `counted` samples of
    the training data, `apart` from those unless there are no others. `lowering` is what a spec that folds says under
    `export: lowering:`. `batch` is that of the race. `left` are blocks for which no constant per channel can stand.
    `prices` are those of the engine as it is; None where they were not asked for, or no block may be folded.
    """

    of: OfWeights
    bound: float
    backend: str
    precision: str
    deciding: str
    counted: int
    apart: bool
    blocks: tuple[BlockFold, ...]
    engine: EngineFold | None
    lowering: tuple[str, ...]
    batch: int
    left: tuple[str, ...]
    prices: Prices | None = None


FOLDING = Kind("folding", Folding, "sesurgery gates --fold")
SUBJECT = "weights"
"""Of a run there is one: the last."""


@dataclass(frozen=True)
class Scored:
    """What folding changed in an engine's answers."""

    flips: Share
    top1: tuple[float, float]
    difference: Gain
    mcnemar: McNemar


def flipped(before: Answers, after: Answers) -> Share:
    """The share of samples that are answered differently: of a sequence, at any position."""
    return share(int((before != after).reshape(len(before), -1).any(axis=1).sum()), len(before))


def predicted(before: Answers, after: Answers, held_out: int) -> Prediction:
    """What flips of training samples say of so many held-out ones."""
    flips = flipped(before, after)
    return Prediction(flips, held_out, most(flips.high, held_out))


def predicted_time(prices: Prices, keys: Collection[str], confidence: float) -> TimePrediction:
    """What folding these blocks together does to an engine's time, if it saves what having them costs."""
    saved = prices.of(keys)
    value, low, high = (-seconds / prices.whole for seconds in (saved.value, saved.high, saved.low))
    return TimePrediction(value, low, high, confidence)


def most(share: float, samples: int) -> int:
    """The fewest flips that are not exceeded with probability `LEVEL` where each sample flips with this share."""
    # Importing scipy takes a tenth of a second, which other verbs do not need.
    from scipy.special import bdtr

    return next(count for count in range(samples + 1) if bdtr(count, samples, share) >= LEVEL or count == samples)


def scored(before: Answers, after: Answers, labels: NDArray[np.generic]) -> Scored:
    """An engine's answers before and after folding, against the labels."""
    was, now = before == labels, after == labels
    top1 = (float(was.mean()), float(now.mean()))
    return Scored(flipped(before, after), top1, gain(now[None], was[None]), mcnemar(now, was))
