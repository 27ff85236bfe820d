"""What folding gates of an ONNX file does to what it puts out, of which only shapes and values are known.

An answer is the class of the largest value in a row of the first output [N, classes]. Where there is none, it is the
sequence of these classes in an output [N, T, classes]. As boxes and features have that shape too, its rows must hold
probabilities, or their logarithms. Of other outputs, maps and boxes, no answer flips: they only change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sesurgery.backends.base import Array
from sesurgery.verification.estimates import Tax
from sesurgery.verification.folding import Answers, Prediction, Scored
from sesurgery.verification.predicting import classes_of
from sesurgery.verification.proportions import Share

PROBABLE = 1e-2
"""How far from 1 the probabilities of a row may sum up to: those of an fp16 file are rounded."""


@dataclass(frozen=True)
class Answering:
    """The output that answers, and whether an answer is a `sequence` of classes."""

    output: str
    sequence: bool = False

    def answers(self, outputs: Mapping[str, Array]) -> Answers:
        """The answer to each sample; -1 for a class whose row is not finite."""
        rows = outputs[self.output]
        found: Answers = classes_of(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape[:-1]).astype(np.intp)
        return found


def answering(outputs: Mapping[str, Array], samples: int) -> Answering | str:
    """Which of the outputs over so many samples answers, or why none does."""
    scores = {
        name: array
        for name, array in outputs.items()
        if array.dtype.kind == "f" and len(array) == samples and array.ndim in (2, 3) and array.shape[-1] > 1
    }
    for name, array in scores.items():
        if array.ndim == 2:
            return Answering(name)
    for name, array in scores.items():
        if array.ndim == 3 and _are_probable(array):
            return Answering(name, sequence=True)
    found = ", ".join(f"{name!r} is {'x'.join(map(str, array.shape))}" for name, array in outputs.items())
    return f"no output has a row of classes for each sample, or a sequence of their probabilities ({found})"


def _are_probable(rows: NDArray[np.generic]) -> bool:
    """Whether each row along the last axis holds probabilities, or their logarithms."""
    values = rows.astype(np.float64)
    # What is no logarithm of a probability may be too large for exp.
    with np.errstate(over="ignore"):
        forms = (values, np.exp(values))
    return any(bool((each >= 0).all() and (np.abs(each.sum(axis=-1) - 1) <= PROBABLE).all()) for each in forms)


@dataclass(frozen=True)
class GateFold:
    """A gate of a file, and whether it is `folded`.

    `within` is the largest distance of any channel from the middle of its range, on the samples that decide.
    """

    key: str
    within: float
    folded: bool


@dataclass(frozen=True)
class Flips:
    """Answers that flip: counted on the samples that decide, of the held-out ones predicted and measured.

    `scored` holds top-1 and its tests on the held-out samples; None where labels are not known, or are none of a
    sequence.
    """

    answering: Answering
    predicted: Prediction
    measured: Share
    scored: Scored | None

    @property
    def as_predicted(self) -> bool:
        return self.predicted.covers(self.measured)


@dataclass(frozen=True)
class FileEngineFold:
    """An engine with every gate folded that is constant, against the same engine without; both saw every sample.

    `change` is the largest difference of any output on the held-out samples over that output's largest value, infinite
    where it has another shape. `flips` is None where no answer can be told, and `why` says why. `latency` is its time
    over the other's minus one, at `batch`: below zero where it is faster.
    """

    change: float
    flips: Flips | None
    why: str | None
    latency: Tax
    doubt: str | None
    batch: int


@dataclass(frozen=True)
class FileFolding:
    """Each gate of a file, and an engine of `backend` and `precision` with those folded that are within `bound`.

    Of the samples `deciding` decide and `held_out` are measured, `labelled` where halves have equally many of each
    label. `engine` is None where no gate may be folded. `left` are gates that the pass does not know. `commands` write
    the folded file and build its engine.
    """

    bound: float
    backend: str
    precision: str
    deciding: int
    held_out: int
    labelled: bool
    gates: tuple[GateFold, ...]
    left: tuple[str, ...]
    engine: FileEngineFold | None
    commands: tuple[str, ...]

    @property
    def folded(self) -> int:
        """How many gates are folded."""
        return sum(gate.folded for gate in self.gates)
