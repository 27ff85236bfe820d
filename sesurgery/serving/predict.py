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
from sesurgery.verification import batches
from sesurgery.workspace.details import AskedEngine

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
    predictions: list[Prediction] = []
    failures: list[Diagnostic] = []
    with backend_of(manifest).load(engine) as runner:
        _require_classifier(runner)
        sizes: list[int] = []
        pile: list[tuple[Path, NDArray[np.float32]]] = []
        for path in _files(images):
            try:
                image = read_image(path, known.preprocessing)
            except SesurgeryError as error:
                failures.extend(error.diagnostics)
                continue
            sizes = sizes or _sizes(runner, manifest.details.engine, image.shape)
            pile.append((path, image))
            if len(pile) == sizes[-1]:
                predictions.extend(_answers(runner, pile, sizes, known.classes, top))
                pile = []
        if pile:
            predictions.extend(_answers(runner, pile, sizes, known.classes, top))
    return Predicted(tuple(predictions), tuple(failures))


def _require_classifier(runner: Runner) -> None:
    if len(runner.inputs) != 1 or len(runner.outputs) != 1:
        counts = f"{len(runner.inputs)} inputs and {len(runner.outputs)} outputs"
        raise fail("SE606", f"the engine has {counts}; a classifier with one of each is expected")


def _sizes(runner: Runner, asked: AskedEngine, sample: tuple[int, ...]) -> list[int]:
    """The batch sizes up to LARGEST at which the engine takes such samples; its smallest alone if that is larger."""
    limits = batches.limits(asked, runner, sample)
    taken = [size for size in range(limits.smallest, min(limits.largest, LARGEST) + 1) if limits.takes(size)]
    return taken or [limits.smallest]


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


def batch_of(images: Sequence[NDArray[np.float32]], size: int) -> NDArray[np.float32]:
    """Images as one batch, filled up to `size` with copies of the last; raises SE606 if too large."""
    missing = size - len(images)
    if missing > 0 and size * images[0].size > MOST_VALUES:
        text = f"the engine takes {size} images of {images[0].size} values at once: that is more than memory holds"
        raise fail("SE606", text, "build an engine for smaller batches")
    return np.stack([*images, *[images[-1]] * max(0, missing)])


def _answers(
    runner: Runner,
    pile: Sequence[tuple[Path, NDArray[np.float32]]],
    sizes: Sequence[int],
    classes: Sequence[str],
    top: int,
) -> Iterator[Prediction]:
    batch = batch_of([array for _, array in pile], next(size for size in sizes if size >= len(pile)))
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
