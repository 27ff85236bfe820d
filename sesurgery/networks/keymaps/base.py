"""The contract of a key map: for each key of a file in another layout, where its value belongs here."""

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
        """Where the value of each of a file's keys belongs; a key that the layout does not have stands for itself."""


@dataclass(frozen=True)
class Example:
    """Keys of a file in the layout, and where each belongs."""

    name: str
    keymap: KeyMap
    places: Mapping[str, Place]


def by_patterns(keys: Collection[str], names: Mapping[str, str], blocks: Mapping[str, str] = {}) -> dict[str, Place]:
    """Places by regular expressions over whole keys; the first that matches gives its replacement.

    Of blocks the replacement is `scope:parameter`.
    """
    return {key: _place(key, names, blocks) for key in keys}


def _place(key: str, names: Mapping[str, str], blocks: Mapping[str, str]) -> Place:
    for pattern, replacement in blocks.items():
        if found := re.fullmatch(pattern, key):
            scope, _, parameter = found.expand(replacement).partition(":")
            return InBlock(scope, parameter)
    for pattern, replacement in names.items():
        if found := re.fullmatch(pattern, key):
            return found.expand(replacement)
    return key
