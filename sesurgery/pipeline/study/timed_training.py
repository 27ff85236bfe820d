"""How long a training would take: its first batches are trained and evaluated as in a trial, the rest is reckoned."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sesurgery.spec.train import Train
from sesurgery.temporaries import folder_for
from sesurgery.training.data.base import Data
from sesurgery.training.history import Epoch

BATCHES = 8
"""Batches of training that are run. The first is not counted: it allocates memory, and compiles."""
EVALUATED = 3
"""Batches of held-out samples that are evaluated, at most."""


class _EnoughError(Exception):
    """Ends a training after its first epoch."""


@dataclass
class _Beats:
    """When each batch of training and of evaluation was done, and the epoch."""

    train: list[float] = field(default_factory=list)
    evaluate: list[float] = field(default_factory=list)
    ended: float = 0.0

    def batch(self, phase: str, done: int, total: int) -> None:
        if torch.cuda.is_available():
            # A GPU answers before it has computed.
            torch.cuda.synchronize()
        (self.train if phase == "train" else self.evaluate).append(time.perf_counter())

    def epoch(self, epoch: Epoch) -> None:
        self.ended = time.perf_counter()
        raise _EnoughError


def training_seconds(network: nn.Module, data: Data, recipe: Train, blocks: Collection[str]) -> float:
    """Seconds of a training by this recipe; the network is trained a little.

    Threads, reading and augmentation are the recipe's, as are evaluation and checkpoints. A teacher is taken to answer
    as fast as the network itself, and no epoch to be left out by `stop`. Raises what training raises, and
    KeyboardInterrupt after ^C.
    """
    from sesurgery.training.loop import FitRequest, fit
    from sesurgery.training.loop.module import HELD_OUT_BATCH

    batch = min(recipe.batch_size, len(data.train))
    count, judged = min(len(data.train), BATCHES * batch), min(len(data.held_out), EVALUATED * HELD_OUT_BATCH)
    few = replace(
        data,
        train=replace(data.train, labels=data.train.labels[:count]),
        held_out=replace(data.held_out, labels=data.held_out.labels[:judged]),
    )
    alone = recipe.model_copy(update={"trackers": (), "keep_epochs": None})
    teacher = None if recipe.distill is None else copy.deepcopy(network)
    beats, began = _Beats(), time.perf_counter()
    with folder_for("estimate") as folder:
        try:
            fit(FitRequest(network, few, alone, Path(folder), False, beats.epoch, beats.batch, blocks, teacher))
        except _EnoughError:
            pass
        else:
            raise KeyboardInterrupt
    start = beats.train[0] - began
    step = _interval(beats.train) or start
    # The first batch of evaluation comes with the change to it, which there is once an epoch.
    more = (len(data.held_out) - judged) / HELD_OUT_BATCH
    one = _interval(beats.evaluate) or beats.evaluate[0] - beats.train[-1]
    each = len(data.train) // batch * step + more * one + beats.ended - beats.train[-1]
    return start + recipe.epochs * each


def _interval(beats: Sequence[float]) -> float:
    """The median time between two beats, which one other program that came between them does not move; 0 of one."""
    return float(np.median(np.diff(beats))) if len(beats) > 1 else 0.0
