"""The section `engines:` of a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from sesurgery.profiles import parse_profile
from sesurgery.spec.bounds import MOST_RULES, Repeats, Short, Size
from sesurgery.spec.choice import Auto
from sesurgery.spec.frozen import Frozen
from sesurgery.spec.plugins import BackendField

Precision = Literal["fp32", "fp16", "bf16", "int8"]


class BatchSizes(Frozen):
    """Batch sizes an engine takes: smallest, the one it is tuned for, largest."""

    min: Size = 1
    opt: Size = 1
    max: Size = 64

    @model_validator(mode="after")
    def _in_order(self) -> BatchSizes:
        if not self.min <= self.opt <= self.max:
            raise PydanticCustomError(
                "excluding", f"min <= opt <= max does not hold for {self.min}, {self.opt}, {self.max}"
            )
        return self


class Calibration(Frozen):
    """The samples for measuring ranges of activations, for int8 scales and for values too large for fp16."""

    samples: Repeats = Field(256, description="number of training samples, always the same ones")
    file: str | None = Field(
        None, description="a .npy or .npz file of samples to use instead, by input name, relative to the current folder"
    )
    method: Literal["minmax", "entropy", "percentile"] = Field(
        "minmax", description="how int8 ranges are chosen: all values, least information lost, or 99.99 % of the values"
    )
    weights: Literal[7, 8, "auto"] = Field(
        "auto",
        description="bits of int8 weights: 7 are safe everywhere, 8 only where kernels do not add pairs in 16 bits",
    )


def _profiles(shapes: tuple[str, ...]) -> tuple[str, ...]:
    for text in shapes:
        try:
            parse_profile(text)
        except ValueError as error:
            raise PydanticCustomError("range", str(error)) from None
    return shapes


class Engine(Frozen):
    """An engine to build."""

    backend: BackendField = Field(
        default="onnxruntime",
        validate_default=True,
        description="the backend: its name, or a mapping with `backend:` and its options",
    )
    precision: Precision = "fp32"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*$"), Short] | None = Field(
        None, description="part of the file's name; needed if two engines share backend and precision"
    )
    batch: BatchSizes = Field(default_factory=BatchSizes)
    shapes: Annotated[tuple[str, ...], AfterValidator(_profiles)] = Field(
        (),
        description="profiles for more than the batch, each as `input=1,8,32x3x224x224`: 1 or 3 sizes per dimension",
    )
    calibration: Calibration = Field(default_factory=Calibration)
    keep_fp32: Annotated[tuple[Annotated[str, Short], ...], Field(max_length=MOST_RULES)] = Field(
        (), description="globs over modules (`layer1.0.se`) that stay fp32 in fp16, bf16 and int8 engines"
    )
    io: Literal["keep", "convert"] = Field(
        "keep",
        description="keep: inputs and outputs stay fp32 in fp16 and bf16 engines; convert: they are converted too",
    )
    converter: Literal["sesurgery", "autocast"] = Field(
        "sesurgery", description="what converts to fp16 and bf16: this program, or AutoCast of nvidia-modelopt"
    )

    @property
    def chosen_by_race(self) -> bool:
        """Whether no backend is named: the fastest of several is kept."""
        return isinstance(self.backend.options, Auto)
