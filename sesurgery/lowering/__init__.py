"""Lowering passes by name, and the order that they ask for."""

from __future__ import annotations

from collections.abc import Iterable

from sesurgery.catalog import Catalog
from sesurgery.diagnostics import fail
from sesurgery.lowering.base import Pass

PASSES = Catalog("sesurgery.lowering.passes", Pass, "pass", group="sesurgery.lowering")  # type: ignore[type-abstract]


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The passes named, each once, in the order given but for what their `after` asks; raises SE105 on others."""
    left = {name: set(PASSES.load(name).after) for name in names}
    done: list[str] = []
    while left:
        free = [name for name, after in left.items() if not after & set(left)]
        if not free:
            raise fail("SE607", f"the passes {', '.join(left)} ask to come after one another")
        done.append(free[0])
        del left[free[0]]
    return tuple(done)


def load(names: Iterable[str]) -> tuple[Pass, ...]:
    """The passes named, with their default options, in order."""
    return tuple(PASSES.load(name)() for name in in_order(names))
