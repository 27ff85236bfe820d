"""The contract of a key map: where the value of each key of a file in another layout belongs."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class InBlock:
    """A parameter of the block on a module's output: `InBlock("layer1.0", "fc1.weight")`."""

    scope: str
    parameter: str


Place = str | InBlock
"""A key of the plain network, or a parameter of an inserted block."""


class KeyMap(ABC):
    """The layout of another project. Subclasses are frozen dataclasses whose fields are the options under `keys:`."""

    @abstractmethod
    def places(self, keys: Collection[str]) -> Mapping[str, Place]:
        """The place of each key's value; a key that is not part of the layout stays as it is."""


@dataclass(frozen=True)
class Example:
    """Keys of a file in the layout, and the place of each."""

    name: str
    keymap: KeyMap
    places: Mapping[str, Place]


def by_patterns(keys: Collection[str], names: Mapping[str, str], blocks: Mapping[str, str] = {}) -> dict[str, Place]:
    """Places by regular expressions over whole keys. For blocks the replacement is `scope:parameter`."""
    return {key: _place(key, names, blocks) for key in keys}


def renamed(key: str, names: Mapping[str, str]) -> str | None:
    """The replacement of the first pattern that matches the whole key; None if none does."""
    matches = ((re.fullmatch(pattern, key), replacement) for pattern, replacement in names.items())
    return next((found.expand(replacement) for found, replacement in matches if found), None)


def _place(key: str, names: Mapping[str, str], blocks: Mapping[str, str]) -> Place:
    if (block := renamed(key, blocks)) is not None:
        scope, _, parameter = block.partition(":")
        return InBlock(scope, parameter)
    return renamed(key, names) or key
