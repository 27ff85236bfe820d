"""An engine's logits over many samples, a batch at a time, and the classes that they give."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sesurgery.backends.base import Array, Runner
from sesurgery.diagnostics import fail
from sesurgery.verification.batches import Limits, answered


class Images(Protocol):
    """Images [N, C, H, W] of which a slice can be had as an array."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice, /) -> ArrayLike: ...


def predict(runner: Runner, images: Images, batch: int) -> Array:
    """Logits [N, classes] of an engine with one input and one output over images [N, C, H, W], `batch` at a time.

    Only one batch is read at a time: `images` may be an array, or anything whose slices become one. The last batch is
    not padded, because padding could hide an engine that is wrong at some batch sizes. Raises SE606 if the engine has
    more than one input or output, or returns another number of rows than it was given.
    """
    if len(runner.inputs) != 1 or len(runner.outputs) != 1:
        counts = f"{len(runner.inputs)} inputs and {len(runner.outputs)} outputs"
        raise fail("SE606", f"the engine has {counts}; a classifier with one of each is expected")
    if batch < 1 or not len(images):
        raise fail("SE606", f"nothing to run: {len(images)} images in batches of {batch}")
    fed, read = runner.inputs[0].name, runner.outputs[0].name
    # An engine's inputs may have its own precision.
    dtype = np.dtype(runner.inputs[0].dtype)
    parts = []
    for start in range(0, len(images), batch):
        piece = np.ascontiguousarray(images[start : start + batch], dtype)
        logits = runner.infer({fed: piece})[read]
        if logits.ndim != 2 or len(logits) != len(piece):
            shape = "x".join(map(str, logits.shape))
            raise fail("SE606", f"output {read!r} has shape {shape} for {len(piece)} samples; [N, classes] is expected")
        # A runner may return the same buffer on every call.
        parts.append(logits.astype(np.float32, copy=True))
    return np.concatenate(parts)


def predict_whole(runner: Runner, images: Images, limits: Limits, batch: int | None = None) -> Array:
    """Logits over all images but for a rest at the end that makes no batch which the engine takes.

    `batch` is the engine's optimum where it is left out. Raises as `predict` does, and SE606 too where the images make
    no batch at all.
    """
    batch = batch or limits.optimal
    count = answered(len(images), batch, limits)
    # A slice is read as a whole, the images themselves a batch at a time.
    kept = images if count == len(images) else np.asarray(images[:count])
    return predict(runner, kept, batch)


def top1(logits: Array, labels: Array) -> float:
    """The share of samples whose `labels` [N] an engine's logits [N, classes] give; NaN and infinity count as wrong."""
    return float((classes_of(logits) == labels).mean())


def classes_of(logits: Array) -> NDArray[np.int64]:
    """The answer to each sample, -1 where the logits are not finite."""
    # argmax treats NaN as the largest value, which could agree by chance.
    found: NDArray[np.int64] = np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1)
    return found
