"""The batch sizes at which an engine is compared: kernels depend on the size, so outputs can too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sesurgery.backends.base import Runner
from sesurgery.profiles import ShapeRange, parse_profile
from sesurgery.spec.engines import Engine
from sesurgery.spec.latency import Latency
from sesurgery.workspace.details import AskedEngine

ODD = 3
"""A size that kernels are not specialised for."""


@dataclass(frozen=True)
class Limits:
    """The batch sizes that an engine takes and the one it is tuned for; `fixed` if it takes only that one.

    `ranges` are those of its profiles, each from its smallest to its largest: there may be gaps between them.
    """

    smallest: int
    optimal: int
    largest: int
    fixed: bool = False
    ranges: tuple[tuple[int, int], ...] = ()

    def takes(self, size: int) -> bool:
        return any(low <= size <= high for low, high in self._taken)

    def __str__(self) -> str:
        return " or ".join(f"from {low} to {high}" for low, high in self._taken)

    @property
    def _taken(self) -> tuple[tuple[int, int], ...]:
        return self.ranges or ((self.smallest, self.largest),)


def limits(asked: AskedEngine, runner: Runner, sample: Sequence[int] = ()) -> Limits:
    """The limits of an engine, from its own inputs and from the options it was built with.

    Of profiles only those count that take a `sample` of the first input (its shape without the batch); left out, it is
    the one that the first profile is tuned for.
    """
    size = runner.inputs[0].shape[0] if runner.inputs and runner.inputs[0].shape else None
    if isinstance(size, int):
        return Limits(size, size, size, fixed=True)
    if not asked.shapes or not runner.inputs:
        return Limits(asked.batch.min, asked.batch.opt, asked.batch.max)
    return _of_profiles(asked, runner.inputs[0].name, tuple(sample))


def tuned_for(asked: AskedEngine) -> int:
    """The batch that an engine is tuned for, by the first of its profiles where it has any."""
    return next((each.optimum[0] for each in _first_inputs(asked)), asked.batch.opt)


def timed(latency: Latency, asked: AskedEngine | Engine) -> Latency:
    """The way to time an engine: where the spec names no batch, at the one nearest to the default that it takes."""
    profiles = [(each.minimum[0], each.maximum[0]) for each in _first_inputs(asked)]
    taken = profiles or [(asked.batch.min, asked.batch.max)]
    if "batch" in latency.model_fields_set or any(low <= latency.batch <= high for low, high in taken):
        return latency
    return latency.model_copy(update={"batch": _nearest([size for pair in taken for size in pair], latency.batch)})


def _first_inputs(asked: AskedEngine | Engine) -> list[ShapeRange]:
    """Of each profile the sizes of the input that it names first."""
    return [next(iter(parse_profile(text).values())) for text in asked.shapes]


def _of_profiles(asked: AskedEngine, name: str, sample: tuple[int, ...]) -> Limits:
    # An input that a profile does not name has the range of `batch`.
    named = [parse_profile(text).get(name) for text in asked.shapes]
    sample = sample or (() if named[0] is None else named[0].optimum[1:])
    # Where no profile takes the sample, the runner says so, with the ranges of all.
    fitting = [each for each in named if each is None or _holds(each, sample)] or named
    batch = (asked.batch.min, asked.batch.opt, asked.batch.max)
    sizes = [batch if each is None else (each.minimum[0], each.optimum[0], each.maximum[0]) for each in fitting]
    ranges = tuple(sorted({(low, high) for low, _, high in sizes}))
    return Limits(ranges[0][0], sizes[0][1], max(high for _, high in ranges), ranges=ranges)


def _holds(profile: ShapeRange, sample: tuple[int, ...]) -> bool:
    low, high = profile.minimum[1:], profile.maximum[1:]
    return len(sample) == len(low) and all(
        least <= size <= most for least, size, most in zip(low, sample, high, strict=True)
    )


def chosen(asked: tuple[int, ...], named: bool, limits: Limits, samples: int) -> tuple[int, ...]:
    """The batch sizes to compare at: the requested ones if the spec `named` them.

    Otherwise the defaults, and the engine's smallest, an odd, its optimal and its largest size; each is the nearest
    that the engine takes and that there are samples for.
    """
    if limits.fixed:
        return (limits.smallest,)
    if named:
        return asked
    taken = [size for size in range(limits.smallest, min(limits.largest, samples) + 1) if limits.takes(size)]
    if not taken:
        return (limits.smallest,)
    odd = next((size for size in taken if size >= ODD and size % 2), taken[-1])
    near = {_nearest(taken, size) for size in (*asked, limits.optimal)}
    return tuple(sorted({taken[0], odd, taken[-1]} | near))


def _nearest(sizes: Sequence[int], wanted: int) -> int:
    return min(sizes, key=lambda size: abs(size - wanted))


def impossible(batch: int, limits: Limits, samples: int) -> str | None:
    """Why an engine cannot be compared at a batch size, or None."""
    if not limits.takes(batch):
        return f"the engine was built for batches {limits}"
    return f"there are {samples} held-out samples" if batch > samples else None


def whole(samples: int, batch: int) -> int:
    """The number of samples rounded up to whole batches, because an engine may not take smaller ones."""
    return -(-samples // batch) * batch


def answered(samples: int, batch: int, limits: Limits) -> int:
    """How many of the samples are answered at a batch size: a rest at the end that the engine does not take is not."""
    rest = samples % batch
    return samples if limits.takes(rest) else samples - rest
