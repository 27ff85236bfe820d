"""Shape ranges -> optimisation profiles. IOptimizationProfile takes wrong names, ranks and sizes without a word, and
the builder says so late or never, so everything is checked against the parsed network first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sesurgery.backends.base import BatchRange
from sesurgery.diagnostics import Diagnostic, SesurgeryError, fail, suggest
from sesurgery.profiles import Profile, ShapeRange

MOST_ELEMENTS = 2**31
"""A tensor of TensorRT has fewer; its builder accepts more and the engine cannot run them."""


def ranges(network: Any, profiles: Sequence[Profile], batch: BatchRange) -> tuple[dict[str, ShapeRange], ...]:
    """The ranges of every dynamic input, a mapping for each profile; empty if all shapes are fixed.

    An input that a profile does not name has `batch` as its first dimension. Raises SE604 with everything that does
    not fit the network.
    """
    inputs = {tensor.name: tensor for tensor in (network.get_input(index) for index in range(network.num_inputs))}
    shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
    mistakes = [
        Diagnostic("SE604", f"input {name!r} holds a shape: its values would need a range")
        for name, tensor in inputs.items()
        if tensor.is_shape_tensor
    ]
    found = []
    for number, profile in enumerate(profiles or ({},)):
        where = f"profile {number + 1}: " if len(profiles) > 1 else ""
        mistakes += _mistakes(profile, shapes, where)
        chosen = {}
        for name, shape in shapes.items():
            if -1 not in shape:
                continue
            if name in profile:
                chosen[name] = profile[name]
            elif -1 in shape[1:]:
                example = "x".join(str(size) if size > 0 else f"SIZE{axis}" for axis, size in enumerate(shape))
                text = f"{where}input {name!r} has shape {list(shape)}: more than its batch is dynamic"
                mistakes.append(Diagnostic("SE604", text, hint=f"give its sizes: --shape {name}={example}"))
            else:
                chosen[name] = ShapeRange(
                    *((size, *shape[1:]) for size in (batch.minimum, batch.optimum, batch.maximum))
                )
        mistakes += _too_large(chosen, where)
        found.append(chosen)
    if mistakes:
        raise SesurgeryError(mistakes)
    return tuple(chosen for chosen in found if chosen)


def add_profiles(builder: Any, config: Any, name: str, found: Sequence[Mapping[str, ShapeRange]], log: Any) -> None:
    """Add a profile for each mapping; raises SE604 with the builder's words where it rejects one."""
    for chosen in found:
        made = builder.create_optimization_profile()
        for given, sizes in chosen.items():
            made.set_shape(given, sizes.minimum, sizes.optimum, sizes.maximum)
        if not made or config.add_optimization_profile(made) == -1:
            words = "; ".join(f"{given}={sizes}" for given, sizes in chosen.items())
            raise fail("SE604", f"{name} rejects the profile {words}: {'; '.join(log.errors)}")


def _mistakes(profile: Profile, shapes: Mapping[str, tuple[int, ...]], where: str) -> Iterator[Diagnostic]:
    for name, sizes in profile.items():
        if name not in shapes:
            yield Diagnostic("SE604", f"{where}there is no input {name!r}", hint=suggest(name, shapes))
            continue
        shape = shapes[name]
        if {len(sizes.minimum), len(sizes.optimum), len(sizes.maximum)} != {len(shape)}:
            yield Diagnostic("SE604", f"{where}input {name!r} has shape {list(shape)}, the profile gives {sizes}")
            continue
        steps = zip(shape, sizes.minimum, sizes.optimum, sizes.maximum, strict=True)
        for axis, (size, low, best, high) in enumerate(steps):
            if not 1 <= low <= best <= high:
                yield Diagnostic("SE604", f"{where}input {name!r}, dimension {axis}: {low},{best},{high} does not rise")
            elif size != -1 and {low, best, high} != {size}:
                given = low if low == high else f"{low},{best},{high}"
                text = f"{where}input {name!r}, dimension {axis}: the file says {size}, the profile {given}"
                yield Diagnostic("SE604", text, hint="only dimensions that the file leaves open can have a range")


def _too_large(chosen: Mapping[str, ShapeRange], where: str) -> Iterator[Diagnostic]:
    for name, sizes in chosen.items():
        elements = 1
        for size in sizes.maximum:
            elements *= size
        if elements >= MOST_ELEMENTS:
            text = (
                f"{where}input {name!r} has {elements} elements at {sizes}; an engine takes fewer than {MOST_ELEMENTS}"
            )
            yield Diagnostic("SE604", text, hint="lower the largest sizes")
