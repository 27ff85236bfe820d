"""The section `input:` of a spec."""

from __future__ import annotations

import math

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from sesurgery.spec.bounds import MOST_VALUES, Size
from sesurgery.spec.frozen import Frozen


class Input(Frozen):
    """The network's input; the batch is always dynamic."""

    shape: tuple[Size, ...] = Field(
        description="channels, height, width; channels, time, height, width of a network of 3-d convolutions",
        min_length=3,
        max_length=4,
    )

    @field_validator("shape")
    @classmethod
    def _fits_in_memory(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if (found := math.prod(shape)) > MOST_VALUES:
            raise PydanticCustomError("range", f"a sample has at most {MOST_VALUES} values, found {found}")
        return shape
