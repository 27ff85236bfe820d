"""At which batch sizes an engine is compared: kernels change with the size, and so can answers."""

from __future__ import annotations

from dataclasses import dataclass

from sesurgery.backends.base import Runner
from sesurgery.workspace.manifests import AskedEngine

ODD = 3
"""A size that no kernel is made for."""


@dataclass(frozen=True)
class Limits:
    """The batch sizes that an engine takes and the one it is tuned for; `fixed` where it takes that one alone.

    `largest` is None where its profiles say, which are not looked into.
    """

    smallest: int
    optimal: int
    largest: int | None
    fixed: bool = False


def limits(asked: AskedEngine, runner: Runner) -> Limits:
    """What an engine takes, as it says itself and as it was asked for."""
    size = runner.inputs[0].shape[0] if runner.inputs and runner.inputs[0].shape else None
    if isinstance(size, int):
        return Limits(size, size, size, fixed=True)
    if asked.shapes:
        return Limits(1, 1, None)
    return Limits(asked.batch.min, asked.batch.opt, asked.batch.max)


def chosen(asked: tuple[int, ...], named: bool, limits: Limits, samples: int) -> tuple[int, ...]:
    """Those asked for where somebody `named` them.

    Else they are brought within what the engine takes and there are samples for, and with them go the smallest, an odd,
    the tuned-for and the largest size of the engine.
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
    """Why an engine cannot be compared at a batch size, or None: smaller batches would show nothing of it."""
    largest = max(batch, limits.smallest) if limits.largest is None else limits.largest
    if not limits.fixed and not limits.smallest <= batch <= largest:
        return f"the engine was built for batches from {limits.smallest} to {largest}"
    return f"there are {samples} held-out samples" if batch > samples else None


def whole(samples: int, batch: int) -> int:
    """At least so many samples, in whole batches: an engine may take no smaller one."""
    return -(-samples // batch) * batch
