"""The samples of a file in two halves: a lossy pass decides by the first, what it does is measured on the second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from sesurgery.diagnostics import fail
from sesurgery.pipeline.build_engine.calibration import Array, order, samples_in, samples_of_file

LEAST = 4
"""Samples of which halves are made: with two in each, a gate can differ from sample to sample."""


@dataclass(frozen=True)
class Half:
    """Samples by the inputs' names, their labels [N] where they are known, and how many the file takes at once."""

    arrays: Mapping[str, Array]
    labels: NDArray[np.int64] | None
    step: int

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def feeds(self) -> tuple[Mapping[str, Array], ...]:
        """Feeds of one sample each, or of the batch that the file fixes."""
        return tuple(
            {name: np.ascontiguousarray(array[start : start + self.step]) for name, array in self.arrays.items()}
            for start in range(0, len(self), self.step)
        )


def halves(model: onnx.ModelProto, path: Path, option: str) -> tuple[Half, Half]:
    """Two halves of a file's samples that share none, drawn at random and always the same ones.

    Where the file has labels, half of the samples of each label are in either. `option` is how a user names such a
    file. Raises SE606 where there are too few samples or they do not fit the network.
    """
    feeds, labels = samples_of_file(model, path, option)
    count, step = samples_in(feeds), samples_in(feeds[:1])
    least = max(LEAST, 2 * step)
    if count < least:
        text = f"{path} holds too few samples, {count}: half of them decide which gates are constant, half are held out"
        raise fail("SE606", text, f"give at least {least}")
    drawn = order(count)
    if labels is not None:
        drawn = drawn[np.argsort(labels[drawn], kind="stable")]
    # Of neighbours, which have one label where labels are known, each half gets one.
    drawn = np.concatenate([drawn[::2], drawn[1::2]])
    cut = count // step // 2 * step
    arrays = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    first, second = (
        Half({name: array[which] for name, array in arrays.items()}, None if labels is None else labels[which], step)
        for which in (np.sort(drawn[:cut]), np.sort(drawn[cut:]))
    )
    return first, second
