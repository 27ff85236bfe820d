"""The batch sizes at which an engine is compared: kernels depend on the size, so outputs can too."""

from __future__ import annotations

from dataclasses import dataclass

from sesurgery.backends.base import Runner
from sesurgery.workspace.details import AskedEngine

ODD = 3
"""A size that kernels are not specialised for."""


@dataclass(frozen=True)
class Limits:
    """The batch sizes that an engine takes and the one it is tuned for; `fixed` if it takes only that one.

    `largest` is None if it is set by profiles, which are not read here.
    """

    smallest: int
    optimal: int
    largest: int | None
    fixed: bool = False


def limits(asked: AskedEngine, runner: Runner) -> Limits:
    """The limits of an engine, from its own inputs and from the options it was built with."""
    size = runner.inputs[0].shape[0] if runner.inputs and runner.inputs[0].shape else None
    if isinstance(size, int):
        return Limits(size, size, size, fixed=True)
    if asked.shapes:
        return Limits(1, 1, None)
    return Limits(asked.batch.min, asked.batch.opt, asked.batch.max)


def chosen(asked: tuple[int, ...], named: bool, limits: Limits, samples: int) -> tuple[int, ...]:
    """The batch sizes to compare at: the requested ones if the spec `named` them.

    Otherwise the defaults, limited to the engine's range and the number of samples, and the engine's smallest, an odd,
    its optimal and its largest size.
    """
    if limits.fixed:
        return (limits.smallest,)
    if named:
        return asked
    largest = min(samples if limits.largest is None else limits.largest, samples)
    odd = min(max(ODD, limits.smallest | 1), largest)
    sizes = (*(max(size, limits.smallest) for size in asked), limits.smallest, odd, limits.optimal, largest)
    return tuple(sorted({min(size, largest) for size in sizes}))


def impossible(batch: int, limits: Limits, samples: int) -> str | None:
    """Why an engine cannot be compared at a batch size, or None."""
    largest = max(batch, limits.smallest) if limits.largest is None else limits.largest
    if not limits.fixed and not limits.smallest <= batch <= largest:
        return f"the engine was built for batches from {limits.smallest} to {largest}"
    return f"there are {samples} held-out samples" if batch > samples else None


def whole(samples: int, batch: int) -> int:
    """The number of samples rounded up to whole batches, because an engine may not take smaller ones."""
    return -(-samples // batch) * batch
