"""What a manifest's `details` hold: the types of the keys that are read, checked when the file is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from sesurgery.diagnostics import fail

_OPEN = ConfigDict(extra="allow", strict=True)


@with_config(_OPEN)
class _Backend(TypedDict):
    backend: str


@with_config(_OPEN)
class _Batch(TypedDict):
    min: int
    opt: int
    max: int


@with_config(_OPEN)
class _Engine(TypedDict):
    backend: _Backend
    batch: _Batch
    shapes: list[str]


@with_config(_OPEN)
class _Known(TypedDict, total=False):
    """Keys of all kinds of manifests; others may stand beside them, and are nobody's business here."""

    spec: str | None
    run: str | None
    onnx: str
    plain: bool
    backend: str
    precision: str
    # What was built; of an engine on a server, the engine's path.
    engine: _Engine | str
    seconds: float
    convolutions: dict[str, int]
    notes: list[str]
    kept_fp32: list[Any]
    ingredients: dict[str, str]
    code: dict[str, str | None]
    nodes: int
    top1: float | None
    epochs: int | None
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int


_KNOWN: TypeAdapter[_Known] = TypeAdapter(_Known)


class Details(dict[str, object]):
    """The details of one manifest; a key that it lacks is a fault of the file (SE401), not of the program."""

    def __init__(self, given: Mapping[str, object], file: str) -> None:
        super().__init__(given)
        self._file = file

    def __missing__(self, key: str) -> object:
        raise fail("SE401", f"the manifest of {self._file} does not say {key!r}", "make the file again")


def problem(details: Mapping[str, object]) -> str | None:
    """What is wrong with the types of details that were read from a file, or None."""
    try:
        _KNOWN.validate_json(json.dumps(details))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"details.{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return None
