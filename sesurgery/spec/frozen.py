"""The base class of all sections of a spec."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Globs = Annotated[
    tuple[str, ...],
    Field(min_length=1),
    # One glob is a list of one. A tuple, because strict mode takes a list for one from JSON alone.
    BeforeValidator(
        lambda given: (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else given
    ),
]


class Frozen(BaseModel):
    """A part of a spec: immutable, and unknown keys are errors."""

    alone: ClassVar[str] = ""
    """The key whose value may be written instead of the whole part."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_by_name=True)
