"""The samples that an engine classifies differently from the model, with small pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST = 24
"""Number of pictures that are kept."""
SIDE = 64
"""Largest side of a stored picture in pixels; larger images are subsampled."""


class Picked(Protocol):
    """Images [N, C, H, W] of which a slice can be had as an array."""

    def __getitem__(self, which: slice, /) -> ArrayLike: ...


@dataclass(frozen=True)
class FlippedSample:
    """A sample's position, label and both predictions as class names, and both confidences (softmax, 0 to 1).

    `answer` is None if the engine gave NaN or infinity. `png` is the picture in base64, scaled to its own range.
    """

    index: int
    label: str
    expected: str
    answer: str | None
    expected_share: float
    answer_share: float
    png: str


def flipped_samples(
    images: Picked,
    reference: NDArray[np.generic],
    candidate: NDArray[np.generic],
    labels: NDArray[np.generic],
    classes: Sequence[str],
    disagreeing: Sequence[int],
) -> Iterator[FlippedSample]:
    """The `disagreeing` positions with the model's highest confidence, the highest first."""
    sure = _softmax(reference.astype(np.float64))
    for index in sorted(disagreeing, key=lambda index: -float(sure[index].max()))[:MOST]:
        finite = bool(np.isfinite(candidate[index]).all())
        given = _softmax(candidate[index : index + 1].astype(np.float64))[0] if finite else None
        yield FlippedSample(
            index=index,
            label=_name(classes, int(labels[index])),
            expected=_name(classes, int(sure[index].argmax())),
            answer=None if given is None else _name(classes, int(given.argmax())),
            expected_share=float(sure[index].max()),
            answer_share=0.0 if given is None else float(given.max()),
            png=picture(np.asarray(images[index : index + 1])[0]),
        )


def picture(image: NDArray[np.generic]) -> str:
    """An image [C, H, W] as a PNG in base64: grey for one channel, otherwise the first three as colours."""
    # Of the verbs that compare, only those that find a flip draw.
    from PIL import Image

    values = np.nan_to_num(image.astype(np.float64), posinf=0.0, neginf=0.0)
    values = values[:3] if len(values) >= 3 else values[:1]
    step = -(-max(values.shape[1:]) // SIDE)
    values = values[:, ::step, ::step]
    low, high = values.min(), values.max()
    grey = np.round(255 * (values - low) / (high - low or 1.0)).astype(np.uint8)
    made = Image.fromarray(grey[0] if len(grey) == 1 else np.moveaxis(grey, 0, 2))
    with io.BytesIO() as stream:
        made.save(stream, "PNG", optimize=True)
        return base64.b64encode(stream.getvalue()).decode("ascii")


def _name(classes: Sequence[str], index: int) -> str:
    """A network may have more outputs than the data has classes."""
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def _softmax(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(rows - rows.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return shares
