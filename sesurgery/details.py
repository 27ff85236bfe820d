"""What a manifest says beyond what all manifests say: known keys have their types, a missing one is named.

Manifests lie on disks, where anybody may have written into them: nothing behind this module looks at a type again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sesurgery.diagnostics import fail

_LONGEST_PATH, _LONGEST_NAME = 4096, 255


def _place(text: str) -> str:
    if "\0" in text or len(text) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in text.split("/")):
        raise ValueError("a path that no file can have")
    return text


Place = Annotated[str, AfterValidator(_place)]
"""A path, as far as it can be one."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class _Batch(_Part):
    min: Annotated[int, Field(gt=0)]
    opt: Annotated[int, Field(gt=0)]
    max: Annotated[int, Field(gt=0)]


class _Backend(_Part):
    backend: str


class _Asked(_Part):
    backend: _Backend
    batch: _Batch
    shapes: list[str]


class _Network(_Part):
    structure: str
    values: str
    weights: dict[str, str]


class _Tried(_Part):
    backend: str


class _Choice(_Part):
    key: str
    tried: list[_Tried]


class Known(_Part):
    """The keys that are read again, of whatever kind of artefact; what else is there is shown at most."""

    run: Place | None = None
    spec: Place | None = None
    onnx: Place = ""
    plain: bool = False
    backend: str = ""
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    engine: _Asked | Place | None = None
    seconds: float = 0.0
    convolutions: dict[str, int] = {}
    notes: list[str] = []
    kept_fp32: list[Any] = []
    ingredients: dict[str, str] = {}
    network: _Network | None = None
    choice: _Choice | None = None
    nodes: int = 0
    epochs: int | None = None
    code: dict[str, str | None] = {}
    int8_weights: dict[str, Any] | None = None
    top1: float | None = None
    params_before: int = 0
    params_after: int = 0
    macs_before: int = 0
    macs_after: int = 0


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
        Known.model_validate_json(json.dumps(details))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"details.{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return None
