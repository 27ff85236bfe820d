"""A lowering pass as a spec names it, with options where it has any: `constant_gates(bound=0.05)`.

This text is what is carried from the spec to manifests and engines' ingredients: an engine is built again with the same
options by whoever reads it there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_FORM = re.compile(r"\s*([^()]+?)\s*(?:\(([^()]*)\))?\s*")


@dataclass(frozen=True)
class NamedPass:
    """The name of a pass, and the options that differ from its own."""

    name: str
    options: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        told = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"{self.name}({told})" if told else self.name


def pass_named(text: str) -> NamedPass:
    """The pass that a text names; raises ValueError, with what was expected, where it has another form."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"expected a pass as NAME or NAME(option=number), found {text!r}")
    options: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in (found[2] or "").split(","))):
        key, _, value = (side.strip() for side in part.partition("="))
        try:
            options[key] = float(value)
        except ValueError:
            raise ValueError(f"an option of a pass is written option=number, found {part!r}") from None
        if not key.isidentifier() or not math.isfinite(options[key]):
            raise ValueError(f"an option of a pass is written option=number, found {part!r}")
    return NamedPass(found[1], options)
