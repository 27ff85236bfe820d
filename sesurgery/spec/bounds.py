"""Upper bounds for numbers and names in a spec: above every real use, below what exhausts a machine.

A mistyped number gives an error at its place instead of using all memory or threads.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

Size = Annotated[int, Field(gt=0, le=65536)]
"""Channels, heights, widths and batches."""
Threads = Annotated[int, Field(gt=0, le=1024)]
Repeats = Annotated[int, Field(gt=0, le=1_000_000)]
"""Counts: epochs, rounds, samples."""
CheckedBatch = Annotated[int, Field(gt=0, le=1024)]
"""Of a batch that is computed at once by torch."""

MOST_VALUES = 2**26
"""Of one sample of the network's input: 256 MB in fp32."""
MOST_CHECKED = 2**28
"""Of a batch that the exported network is checked with: 1 GB in fp32."""
MOST_RULES = 256
MOST_ENGINES = 64
_NAME_BYTES = 100


def _short(name: str) -> str:
    # A file name has at most 255 bytes, and artefacts append a backend, a precision and suffixes to this name.
    if (found := len(name.encode(errors="replace"))) > _NAME_BYTES:
        raise PydanticCustomError("range", f"a name has at most {_NAME_BYTES} bytes, found {found}")
    return name


Short = AfterValidator(_short)
"""The pattern of names that become part of a file name."""
