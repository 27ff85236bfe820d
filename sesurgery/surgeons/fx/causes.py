"""Why a network does not run on an input, by what it raises, and what to do about each cause."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import fx

_LARGER = "give it larger images"
_ITS_SIZE = "give it images of the size that it is made for"
_CAUSES = (
    (r"to have (\d+) channels, but got", "give it images of {} channels"),
    (r"Kernel size can't be greater than|[Oo]utput size is too small|Padding size should be less than", _LARGER),
    (r"Expected more than 1 (?:value per channel|spatial element)|smaller than kernel size", _LARGER),
    (
        r"mat1 and mat2 shapes cannot be multiplied|same reduction dim|shape '.*' is invalid for input of size",
        _ITS_SIZE,
    ),
    (r"must match the size of tensor|[Dd]oesn't match model|must be divisible|should be divisible", _ITS_SIZE),
    (r"size mismatch|normalized_shape|input and weight\.T shapes", _ITS_SIZE),
    (
        r"missing (?:\d+|a) required (?:positional |keyword-only )?argument",
        "give all of its arguments, `sesurgery.insert(..., example_input=(image, ...))`, "
        "or name a part of it that takes an image alone as 'submodule'",
    ),
    (
        r"expected scalar type|must have the same dtype|same dtype|[Ii]nput type .* and .* type .* should be the same",
        "give it an example in the dtype of its parameters",
    ),
    (r"[Nn]o module named|requires the .* library", "install what it imports"),
)
_UNTRACEABLE = (
    (r"a region of torch\.inference_mode", "write `with torch.no_grad():` in its place, which a graph can keep"),
    (r"a switch of autocast without", "write `with torch.autocast(...):` around what the switch is for"),
    (
        r"it calls (\w+), an operation with a gradient of its own",
        "move the call of {} into a module of its own, which is then called as it is",
    ),
    (r"runs another graph in training", "put all blocks in at once, into the network as it was before the first ones"),
    (r"changes the length of a list", "let it return a list of its own: `return [*values, new]`"),
)
_DATA = "move what depends on the data into a module of its own"
_OWN = "the error is the network's own: call it on such an input, and see where it is raised"


def what_to_do(error: BaseException | None, otherwise: str = _OWN) -> str:
    """A hint that fits what was raised, whether the input is of a spec or of a call of `insert`."""
    return _fitting(_CAUSES, error) or otherwise


def how_to_trace(error: BaseException, otherwise: str) -> str:
    """A hint for a forward that cannot be traced, by what its tracing raised."""
    if isinstance(error, fx.proxy.TraceError):
        return _fitting(_UNTRACEABLE, error) or _DATA
    return what_to_do(error, otherwise)


def is_known(error: BaseException | None) -> bool:
    """Whether there is a hint for what was raised."""
    return what_to_do(error, "") != ""


def _fitting(causes: Iterable[tuple[str, str]], error: BaseException | None) -> str:
    for pattern, hint in causes:
        if (found := re.search(pattern, str(error))) is not None:
            return hint.format(*found.groups())
    return ""
