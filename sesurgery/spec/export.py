"""The section `export:` of a spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sesurgery.spec.bounds import CheckedBatch
from sesurgery.spec.frozen import Frozen
from sesurgery.spec.plugins import PassesField


class Export(Frozen):
    """How the network becomes an ONNX file."""

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    check_batches: Annotated[tuple[CheckedBatch, ...], Field(min_length=1, max_length=64)] = Field(
        (1, 3), description="batch sizes at which the file is compared with the model"
    )
    max_abs: Annotated[float, Field(gt=0)] = Field(
        1e-4,
        description="largest accepted difference from the model, in units of its largest value where that is above 1",
    )
    lowering: PassesField = Field(
        None, description="lowering passes applied before an engine is built, or none; default: those of its backend"
    )
