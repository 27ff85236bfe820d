"""Lowering passes by name, and the order that they ask for."""

from __future__ import annotations

from collections.abc import Iterable

from sesurgery.catalog import Catalog
from sesurgery.diagnostics import fail
from sesurgery.lowering.base import Pass

PASSES = Catalog("sesurgery.lowering.passes", Pass, "pass", group="sesurgery.lowering")  # type: ignore[type-abstract]


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The named passes, each once, in the given order unless `after` demands another; SE105 for unknown names."""
    left = {name: set(PASSES.load(name).after) for name in names}
    done: list[str] = []
    while left:
        free = [name for name, after in left.items() if not after & set(left)]
        if not free:
            raise fail("SE607", f"the passes {', '.join(left)} each require another of them to run first")
        done.append(free[0])
        del left[free[0]]
    return tuple(done)


def load(names: Iterable[str]) -> tuple[Pass, ...]:
    """The named passes in order, with their default options."""
    return tuple(PASSES.load(name)() for name in in_order(names))
