"""New tensors and random draws in a forward, recorded while it is traced.

`torch.randn(3)` in a forward reads no symbol, so torch.fx would run it once and keep the numbers: noise becomes a
constant. `torch.rand(x.shape[0], device=x.device)` cannot be called with symbols at all. Both become nodes here. A draw
by Python or numpy becomes one too, and since nobody knows its outcome, what decides by it cannot be traced.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import fx

_NEW = ("zeros", "ones", "empty", "full", "arange", "linspace", "tensor", "eye", "as_tensor")
_RANDOM = ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson")
_PLAIN: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (random, ("random", "uniform", "randint", "choice", "gauss", "randrange")),
    (np.random, ("rand", "randn", "random", "uniform", "randint", "choice", "normal", "binomial")),
)
_plain = {getattr(owner, name) for owner, names in _PLAIN for name in names}
_recording: list[bool] = []


def is_plain_draw(function: object) -> bool:
    """Whether it is a random number of Python's or numpy's."""
    try:
        return function in _plain
    except TypeError:
        return False


def are_paused() -> bool:
    """Whether `paused` is in force."""
    return bool(_recording) and not _recording[-1]


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Within it new tensors are made and not recorded."""
    _recording.append(False)
    try:
        yield
    finally:
        _recording.pop()


@contextlib.contextmanager
def recorded(record: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]) -> Iterator[None]:
    """Within it every random draw, and every new tensor whose size or device is a symbol, is recorded."""

    def wrapped(function: Callable[..., Any], always: bool) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if _recording[-1] and (always or _has_symbol((args, kwargs))):
                return record(function, args, kwargs)
            return function(*args, **kwargs)

        return call

    places = [(torch, name, False) for name in _NEW] + [(torch, name, True) for name in _RANDOM]
    places += [(owner, name, True) for owner, names in _PLAIN for name in names]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    _recording.append(True)
    try:
        for (owner, name, always), (_, _, function) in zip(places, before, strict=True):
            setattr(owner, name, wrapped(function, always))
        yield
    finally:
        _recording.pop()
        for owner, name, function in before:
            setattr(owner, name, function)


def _has_symbol(value: object) -> bool:
    if isinstance(value, tuple | list):
        return any(map(_has_symbol, value))
    if isinstance(value, dict):
        return any(map(_has_symbol, value.values()))
    return issubclass(type(value), fx.Proxy)
