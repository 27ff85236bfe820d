"""The samples on which an engine is calibrated: from the run's training data, or from a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx as onnx_library
from numpy.typing import NDArray

from sesurgery.diagnostics import fail
from sesurgery.networks import checkpoint
from sesurgery.pipeline.specs import catalogs
from sesurgery.spec.engines import Calibration
from sesurgery.training.data import data_of
from sesurgery.workspace.origin import Origin
from sesurgery.workspace.sample_files import arrays_of

Array = NDArray[np.generic]
SEED = 1709
"""Seed for choosing training samples (the paper's year and month)."""
OPTION = "--calibration FILE.npz, or `calibration: {file: ...}` in the spec"
LABELS = "labels"
"""What a file of samples may hold besides an array for each input: the class of each sample [N]."""


def samples(
    onnx: onnx_library.ModelProto, origin: Origin | None, wanted: Calibration
) -> tuple[list[Mapping[str, Array]], str] | None:
    """Feeds of one sample each (or of the batch that the file fixes), and where they come from; None without any.

    Never of the held-out data: what an engine is judged on must not have shaped it. Raises SE402 if the file of
    samples is not there and SE606 if samples do not fit the network.
    """
    inputs = _inputs(onnx)
    if wanted.file is not None:
        arrays, source = _arrays(Path(wanted.file), inputs, OPTION)[0], wanted.file
    elif origin is not None and (folder := origin.run):
        train = data_of(checkpoint.read_spec(folder, catalogs())).train.images
        chosen = order(len(train))[: wanted.samples]
        arrays, source = (
            {next(iter(inputs)): train[np.sort(chosen)].numpy()},
            f"the training data of {folder.as_posix()}",
        )
    else:
        return None
    feeds = _feeds(arrays, inputs, wanted.samples, source)
    return feeds, f"{samples_in(feeds)} samples of {source}"


def order(count: int) -> NDArray[np.int64]:
    """The positions of so many training samples in the order in which they are taken: calibration takes the first."""
    return np.random.default_rng(SEED).permutation(count)


def samples_of_file(
    model: onnx_library.ModelProto, path: Path, option: str
) -> tuple[list[Mapping[str, Array]], NDArray[np.int64] | None]:
    """All samples of a file as feeds, and their labels [N], where it has them."""
    inputs = _inputs(model)
    arrays, labels = _arrays(path, inputs, option)
    feeds = _feeds(arrays, inputs, min(len(array) for array in arrays.values()), path.as_posix())
    count = samples_in(feeds)
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) < count):
        text = f"{path}: {LABELS!r} is {labels.dtype} of shape {'x'.join(map(str, labels.shape))}"
        raise fail("SE606", text, f"an integer for each of the {count} samples was expected")
    return feeds, None if labels is None else labels[:count].astype(np.int64)


def samples_in(feeds: Sequence[Mapping[str, Array]]) -> int:
    """How many samples feeds hold together."""
    return sum(len(next(iter(feed.values()))) for feed in feeds)


def _arrays(path: Path, inputs: Collection[str], option: str) -> tuple[dict[str, Array], Array | None]:
    """The array of each input that a file holds, and its labels; an input of that name is an input."""
    if LABELS in inputs:
        return arrays_of(path, inputs, option), None
    arrays = arrays_of(path, inputs, option, LABELS)
    return arrays, arrays.pop(LABELS, None)


def _feeds(
    arrays: Mapping[str, Array], inputs: Mapping[str, tuple[int, ...]], most: int, source: str
) -> list[Mapping[str, Array]]:
    """Samples one by one, or as many at once as the file fixes; raises SE606 where they do not fit."""
    step = max(1, *(sizes[0] for sizes in inputs.values()))
    count = min(most, *(len(array) for array in arrays.values())) // step * step
    for name, array in arrays.items():
        fits = len(array.shape) == len(inputs[name]) and all(
            size in (0, found) for size, found in zip(inputs[name][1:], array.shape[1:], strict=True)
        )
        if not count or not fits:
            asked = "x".join(str(size or "?") for size in inputs[name])
            text = f"samples of input {name!r} have shape {'x'.join(map(str, array.shape))}; it takes {asked}"
            raise fail("SE606", text, f"samples come from {source}")
    return [
        {name: np.ascontiguousarray(array[start : start + step]) for name, array in arrays.items()}
        for start in range(0, count, step)
    ]


def _inputs(model: onnx_library.ModelProto) -> dict[str, tuple[int, ...]]:
    """The sizes of each input, 0 where they are open."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) or (0,)
        for value in model.graph.input
        if value.name not in weights
    }
