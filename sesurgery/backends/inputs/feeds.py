"""Checks of the arrays that are fed to an engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sesurgery.backends.base import Array, TensorInfo
from sesurgery.diagnostics import Diagnostic, SesurgeryError, suggest

Bounds = Mapping[str, tuple[Sequence[int], Sequence[int]]]
"""Per input the smallest and the largest shape an engine was built for."""


@dataclass(frozen=True)
class OnDevice:
    """An array in C layout on a GPU. `stream` is one to wait for first; `owner` keeps the memory alive."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    address: int
    stream: int | None
    owner: object

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def check(inputs: Sequence[TensorInfo], feeds: Mapping[str, Array], bounds: Bounds | None = None) -> dict[str, Array]:
    """The feeds in the inputs' order and in C layout; raises SE606 with everything that does not fit."""
    fit(inputs, feeds, bounds)
    # ascontiguousarray would make a vector of a scalar.
    return {info.name: np.asarray(feeds[info.name], order="C") for info in inputs}


def fit(inputs: Sequence[TensorInfo], feeds: Mapping[str, Array | OnDevice], bounds: Bounds | None = None) -> None:
    """Raises SE606 with everything about the feeds that does not fit the inputs."""
    known = [info.name for info in inputs]
    mistakes = [
        Diagnostic("SE606", f"there is no input {name!r}", hint=suggest(name, known))
        for name in feeds
        if name not in known
    ]
    named: dict[str, tuple[str, int]] = {}
    for info in inputs:
        if info.name not in feeds:
            mistakes.append(Diagnostic("SE606", f"input {info.name!r} is missing", hint=f"feed {_wanted(info)}"))
        elif (mistake := _mistake(info, feeds[info.name], (bounds or {}).get(info.name), named)) is not None:
            mistakes.append(Diagnostic("SE606", f"input {info.name!r} {mistake}", hint=f"feed {_wanted(info)}"))
    if mistakes:
        raise SesurgeryError(mistakes)


def _mistake(
    info: TensorInfo,
    array: Array | OnDevice,
    bounds: tuple[Sequence[int], Sequence[int]] | None,
    named: dict[str, tuple[str, int]],
) -> str | None:
    if not isinstance(array, np.ndarray | OnDevice):
        return f"must be a numpy array, found {type(array).__name__}"
    # Compared as types, so that float32 in foreign byte order does not pass.
    if array.dtype != np.dtype(info.dtype):
        return f"has dtype {array.dtype}, expected {info.dtype}"
    if len(array.shape) != len(info.shape):
        return f"has shape {list(array.shape)}, expected {list(info.shape)}"
    for axis, (found, expected) in enumerate(zip(array.shape, info.shape, strict=True)):
        if isinstance(expected, int):
            if found != expected:
                return f"has shape {list(array.shape)}, expected {list(info.shape)}"
            continue
        if found < 1:
            return f"has shape {list(array.shape)}: dimension {axis} ({expected}) is empty"
        other, size = named.setdefault(expected, (info.name, found))
        if size != found:
            return f"has {expected} {found}, but {other!r} has {expected} {size}"
        if bounds is not None and not bounds[0][axis] <= found <= bounds[1][axis]:
            return f"has {expected} {found}, the engine was built for {bounds[0][axis]} to {bounds[1][axis]}"
    return None


def _wanted(info: TensorInfo) -> str:
    return f"{info.dtype} of shape [{', '.join(str(dim) for dim in info.shape)}]"
