"""The kind of fault of an engine that fails parity.

Some kinds show in the outputs. An engine that is right only at batch 1 has a fixed batch. If its logits are the model's
in another order, its classes are ordered differently. If its output for an image is the model's output for the image
with swapped channels, its preprocessing differs. Other faults are inside the network; the chain of files behind the
engine shows where (`chain.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal[
    "precision", "weights", "wiring", "batch", "labels", "preprocessing", "stale", "nonfinite", "saturation", "compiler"
]
Logits = NDArray[np.generic]
Images = NDArray[np.float32]
Model = Callable[[Images], Logits]
"""Logits [n, C] of images [n, channels, H, W]."""
EXPLAINED = 0.2
"""A change explains a difference if at most this share of it remains."""
SAMPLES = 64
"""Number of held-out samples for a diagnosis."""
REMEDIES: Mapping[Kind, str] = {
    "precision": "keep the place in fp32, or build the engine in a wider precision",
    "weights": "export and build again from the run's own weights",
    "wiring": "export again; if a lowering pass caused it, leave that pass out",
    "batch": "export with a dynamic batch, or build an engine for this batch alone",
    "labels": "use the order of the classes that the model was trained with",
    "preprocessing": "use the preprocessing of the training (`interface.json` in the run's folder describes it)",
    "stale": "build the engine again",
    "nonfinite": "keep the named place in fp32, if the model itself is finite there",
    "saturation": "calibrate on data with this range of values, or set `weights: 7`",
    "compiler": "build with another backend, or without lowering passes, and report it to the backend's project",
}


@dataclass(frozen=True)
class Diagnosis:
    """One fault. `site` is the key of the block (or the scope of the node) where it starts, if it has a place."""

    kind: Kind
    text: str
    site: str | None = None

    @property
    def remedy(self) -> str:
        """What to do about this kind."""
        return REMEDIES[self.kind]

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def of_answers(
    model: Model,
    images: Images,
    reference: Logits,
    by_batch: Mapping[int, Logits],
    passed: Mapping[int, bool],
) -> Diagnosis | None:
    """The fault that shows in the outputs for a few `images`: the model's logits and the engine's at each batch size.

    None if the fault lies within the network.
    """
    if (found := _right_at_one(passed)) is not None:
        return found
    engine = by_batch[min(by_batch)]
    if broken := int((~np.isfinite(engine)).any(axis=1).sum()):
        return Diagnosis("nonfinite", f"NaN or infinity in {broken} of the {len(engine)} samples looked at")
    trained, found_logits = reference.astype(np.float64), engine.astype(np.float64)
    # Outputs that hardly depend on the image would be explained by any change of the images.
    apart = min(_apart(trained, found_logits), _apart(found_logits, found_logits.mean(0)))
    if (order := _order(trained, found_logits, apart)) is not None:
        moved = [f"{given} for {meant}" for given, meant in enumerate(order) if given != meant]
        text = f"the logits are the model's in another order ({len(moved)} of {len(order)} classes: {_few(moved)})"
        return Diagnosis("labels", text)
    for change, changed in changes(images):
        given = model(changed).astype(np.float64)
        if np.isfinite(given).all() and _apart(given, found_logits) <= EXPLAINED * apart:
            return Diagnosis("preprocessing", f"its outputs are the model's for images {change}")
    return None


def _right_at_one(passed: Mapping[int, bool]) -> Diagnosis | None:
    right, wrong = [batch for batch in passed if passed[batch]], [batch for batch in passed if not passed[batch]]
    if not right or not wrong:
        return None
    text = f"right at batch {_few(sorted(map(str, right), key=int))}, wrong at {_few(sorted(map(str, wrong), key=int))}"
    return Diagnosis("batch", text)


def _order(trained: NDArray[np.float64], engine: NDArray[np.float64], apart: float) -> tuple[int, ...] | None:
    """The class of the model for each logit of the engine, if a permutation explains the difference; else None."""
    nearest = tuple(int(np.abs(trained - column[:, None]).mean(0).argmin()) for column in engine.T)
    if sorted(nearest) != list(range(len(nearest))) or nearest == tuple(range(len(nearest))):
        return None
    return nearest if _apart(trained[:, nearest], engine) <= EXPLAINED * apart else None


def changes(images: Images) -> Iterator[tuple[str, Images]]:
    """Common mistakes in preprocessing images [n, C, H, W], each with its description."""
    channels = images.shape[1]
    if 1 < channels <= 4:
        for order in permutations(range(channels)):
            if order != tuple(range(channels)):
                yield f"with the channels in the order {', '.join(map(str, order))}", images[:, order]
    yield "times 255", images * np.float32(255)
    yield "over 255", images / np.float32(255)
    low, high = images.min(), images.max()
    if high > low:
        yield "scaled to 0 ... 1", (images - low) / (high - low)
        yield "scaled to -1 ... 1", 2 * (images - low) / (high - low) - 1
    yield "inverted", -images
    yield "mirrored", np.ascontiguousarray(images[..., ::-1])
    yield "upside down", np.ascontiguousarray(images[..., ::-1, :])
    if images.shape[2] == images.shape[3]:
        yield "with height and width swapped", np.ascontiguousarray(images.swapaxes(2, 3))


def _apart(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(np.abs(first - second).mean())


def _few(words: Sequence[str], most: int = 4) -> str:
    return ", ".join(words[:most]) + (", ..." if len(words) > most else "")
