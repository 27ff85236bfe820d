"""Many paths in little memory: each folder once, and the names of the files in one block of bytes."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable

import numpy as np


class Paths:
    """Paths in the order given, as strings when they are asked for; about twelve bytes and the file's name each.

    A list of strings takes 150 bytes a path, and each reading process copies it: Python writes into what it reads.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        names, ends, within, known = bytearray(), array("q"), array("i"), dict[str, int]()
        for path in paths:
            folder, name = os.path.split(path)
            names += os.fsencode(name)
            ends.append(len(names))
            within.append(known.setdefault(folder, len(known)))
        self._names = bytes(names)
        self._ends = np.array(ends, np.int64)
        self._within = np.array(within, np.int32)
        self._folders = tuple(known)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        begin = self._ends[index - 1] if index else 0
        name = os.fsdecode(self._names[begin : self._ends[index]])
        return os.path.join(self._folders[self._within[index]], name)
