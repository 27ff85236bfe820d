"""The verb `predict`: an engine on image files, by its runner alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sesurgery.backends.base import Runner
from sesurgery.diagnostics import Diagnostic, SesurgeryError, described, fail
from sesurgery.serving import interface
from sesurgery.serving.loadable import backend_of, require_loadable
from sesurgery.training.preprocessing import UNREADABLE, Preprocessing

LARGEST = 32
"""Largest number of images in one run of the engine: all are in memory at once."""
MOST_VALUES = 2**30
"""In one run of an engine whose smallest batch is larger than that: 4 GB in fp32."""


@dataclass(frozen=True)
class Guess:
    """A class and its softmax probability."""

    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """An image's classes, the most probable first."""

    image: Path
    guesses: tuple[Guess, ...]


@dataclass(frozen=True)
class Predicted:
    """The predictions in the order of the images, and an error for every file that is no image."""

    predictions: tuple[Prediction, ...]
    failures: tuple[Diagnostic, ...]


def predict(engine: Path, images: Sequence[Path], top: int = 5, *, foreign: bool = False) -> Predicted:
    """Classify image files, and those in folders, prepared as the run's data set prepares them in evaluation.

    A file that cannot be read is left out, with an error in `failures`. Raises SE603 if the engine cannot run here
    or is from elsewhere (unless `foreign`), SE402 if its run is unknown, SE501 if its data set has no images.
    """
    manifest = require_loadable(engine, foreign=foreign)
    known = interface.of(engine, manifest)
    if known.preprocessing is None:
        text = f"the data set {known.dataset!r} does not say how an image file becomes the network's input"
        raise fail("SE501", text, "run the engine on arrays from Python instead")
    batch = manifest.details.engine.batch
    predictions: list[Prediction] = []
    failures: list[Diagnostic] = []
    with backend_of(manifest).load(engine) as runner:
        low, high = _sizes(runner, batch.min, batch.max)
        pile: list[tuple[Path, NDArray[np.float32]]] = []
        for path in _files(images):
            try:
                pile.append((path, read_image(path, known.preprocessing)))
            except SesurgeryError as error:
                failures.extend(error.diagnostics)
            if len(pile) == high:
                predictions.extend(_answers(runner, pile, low, known.classes, top))
                pile = []
        if pile:
            predictions.extend(_answers(runner, pile, low, known.classes, top))
    return Predicted(tuple(predictions), tuple(failures))


def _sizes(runner: Runner, smallest: int, largest: int) -> tuple[int, int]:
    if len(runner.inputs) != 1 or len(runner.outputs) != 1:
        counts = f"{len(runner.inputs)} inputs and {len(runner.outputs)} outputs"
        raise fail("SE606", f"the engine has {counts}; a classifier with one of each is expected")
    fixed = runner.inputs[0].shape[0]
    if isinstance(fixed, int):
        return fixed, fixed
    return smallest, max(smallest, min(largest, LARGEST))


def _files(given: Sequence[Path]) -> Iterator[Path]:
    """The files as named; in a folder, those with an image suffix, in order."""
    suffixes = Image.registered_extensions()
    for path in given:
        if not path.is_dir():
            yield path
            continue
        found = sorted(item for item in path.iterdir() if item.suffix.lower() in suffixes and item.is_file())
        if not found:
            raise fail("SE001", f"there is no image in {path}/", "name files, or a folder with images in it")
        yield from found


def read_image(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """An image file as the network's input [C, H, W]; raises SE001 if it cannot be read."""
    try:
        with Image.open(path) as image:
            values = preprocessing(image)
    except FileNotFoundError:
        raise fail("SE001", f"{path} is not there") from None
    except UNREADABLE as error:
        raise fail(
            "SE001", f"{path} is not an image that can be read: {described(error)}", "PNG and JPEG are read"
        ) from error
    if not np.isfinite(values).all():
        raise fail("SE001", f"{path} is not an image that can be read: it holds values that are no numbers")
    return values


def batch_of(images: Sequence[NDArray[np.float32]], smallest: int) -> NDArray[np.float32]:
    """Images as one batch, filled up to the engine's smallest with copies of the last; raises SE606 if too large."""
    missing = smallest - len(images)
    if missing > 0 and smallest * images[0].size > MOST_VALUES:
        text = f"the engine takes {smallest} images of {images[0].size} values at once: that is more than memory holds"
        raise fail("SE606", text, "build an engine for smaller batches")
    return np.stack([*images, *[images[-1]] * max(0, missing)])


def _answers(
    runner: Runner, pile: Sequence[tuple[Path, NDArray[np.float32]]], smallest: int, classes: Sequence[str], top: int
) -> Iterator[Prediction]:
    batch = batch_of([array for _, array in pile], smallest)
    info = runner.inputs[0]
    (logits,) = runner.infer({info.name: batch.astype(info.dtype)}).values()
    if logits.ndim != 2 or logits.shape[1] != len(classes):
        text = f"the engine gives {list(logits.shape)} for {len(batch)} images, the data set has {len(classes)} classes"
        raise fail("SE606", text, "is it the engine of this run?")
    if not np.isfinite(logits).all():
        raise fail("SE606", "the engine gives NaN or infinity", "check it with `sesurgery verify`")
    for (path, _), row in zip(pile, _softmax(logits), strict=False):
        best = np.argsort(-row, kind="stable")[:top]
        yield Prediction(path, tuple(Guess(classes[index], float(row[index])) for index in best))


def _softmax(logits: NDArray[np.generic]) -> NDArray[np.float64]:
    values = logits.astype(np.float64)
    # The largest logit is subtracted first: exp of a large one overflows.
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
