"""Lowering passes by name, and the order that they ask for."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from sesurgery.catalog import Catalog
from sesurgery.diagnostics import fail, suggest
from sesurgery.lowering.base import Pass
from sesurgery.spec.passes import pass_named

PASSES = Catalog("sesurgery.lowering.passes", Pass, "pass", group="sesurgery.lowering")  # type: ignore[type-abstract]


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The named passes, each once, in the given order unless `after` demands another; SE105 for unknown names."""
    left = {text: set(PASSES.load(pass_named(text).name).after) for text in names}
    done: list[str] = []
    while left:
        waiting = {pass_named(text).name for text in left}
        free = [text for text, after in left.items() if not after & waiting]
        if not free:
            raise fail("SE607", f"the passes {', '.join(left)} each require another of them to run first")
        done.append(free[0])
        del left[free[0]]
    return tuple(done)


def load(names: Iterable[str]) -> tuple[Pass, ...]:
    """The named passes in order, with the options that their names give; raises SE105 for one that a pass lacks."""
    return tuple(map(_made, in_order(names)))


def _made(text: str) -> Pass:
    wanted = pass_named(text)
    kind = PASSES.load(wanted.name)
    # Samples are arrays, which no text gives.
    known = [name for name in inspect.signature(kind).parameters if name != "samples"]
    for option in wanted.options:
        if option not in known:
            raise fail("SE105", f"the pass {wanted.name} has no option {option!r}", suggest(option, known))
    return kind(**wanted.options)
