"""Random inputs, for engines whose data set is not known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sesurgery.backends.base import Array, Runner
from sesurgery.diagnostics import fail
from sesurgery.profiles import parse_profile

SAMPLES = 32
"""Noise samples on which an engine is compared where there are no others."""
SEED = 20170905
KINDS = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
MOST_VALUES = 2**30
"""Numbers of one input, 8 GB as they are drawn: one that asks for more is not a network's."""


def noise(runner: Runner, shapes: Sequence[str], batch: int, seed: int = SEED) -> dict[str, Array]:
    """Normal values from a seed for every input, `batch` samples where the batch is open.

    Other open sizes are the optimum of the first of the profiles in `shapes`; raises SE606 where none names them, or
    where an input is too large for memory.
    """
    random = np.random.default_rng(seed)
    profile = parse_profile(shapes[0]) if shapes else {}
    feeds: dict[str, Array] = {}
    for info in runner.inputs:
        if info.dtype not in KINDS:
            text = f"input {info.name!r} is {info.dtype}: noise is made for arrays of numbers alone"
            raise fail("SE606", text, "a network with such inputs cannot be compared or timed here")
        best = profile[info.name].optimum if info.name in profile else ()
        shape = []
        for axis, dimension in enumerate(info.shape):
            if isinstance(dimension, str) and axis and not best:
                text = f"input {info.name!r} has an open dimension, {dimension}: no noise can be made for it"
                hint = f"build the engine again with its sizes, as in `--shape {info.name}={_sizes(info.shape)}`"
                raise fail("SE606", text, hint)
            shape.append(dimension if isinstance(dimension, int) else best[axis] if axis else batch)
        if math.prod(shape) > MOST_VALUES:
            text = f"input {info.name!r} has {math.prod(shape)} values: that is more than memory holds"
            raise fail("SE606", text, "its sizes in the file are wrong: export it again")
        feeds[info.name] = random.normal(size=shape).astype(info.dtype)
    return feeds


def _sizes(shape: Sequence[int | str]) -> str:
    """A profile that names every open size: three batches, and 224 pixels where nothing is known."""
    wide = ("1,8,32", *("224" for _ in shape[1:]))
    return "x".join(str(size) if isinstance(size, int) else wide[axis] for axis, size in enumerate(shape))


def many(runner: Runner, shapes: Sequence[str], count: int) -> dict[str, Array]:
    """At least `count` samples of noise, where the batch is fixed in so many of them as it takes."""
    first = noise(runner, shapes, count)
    batch = max(1, min(map(len, first.values()), default=count))
    parts = [first, *(noise(runner, shapes, count, SEED + number) for number in range(1, -(-count // batch)))]
    return {name: np.concatenate([part[name] for part in parts]) for name in first}
