"""The section `study:` of a spec: the spec with other values at some places, each with several seeds."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from sesurgery.spec.frozen import Frozen

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Values = Annotated[tuple[JsonValue, ...], Field(min_length=1, max_length=1000)]


def engines_in(path: str) -> list[int]:
    """The position in `engines:` that the path of an axis names; empty for other paths."""
    return [int(number) for number in re.findall(r"^engines\[(\d+)\]", path)]


class Range(Frozen):
    """An axis of numbers between two ends, for a random or Bayesian search; whole numbers where both ends are."""

    low: int | float
    high: int | float
    log: bool = Field(False, description="drawn on a logarithmic scale: 0.001 to 0.01 as often as 0.01 to 0.1")

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            wanted = "0 < low < high" if self.log else "low < high"
            raise PydanticCustomError("excluding", f"{wanted} does not hold for {self.low} and {self.high}")
        return self


class Study(Frozen):
    """An experiment: cells, which are the spec with other values, times seeds; the plain network is always a cell."""

    axes: Annotated[dict[str, Values | Range], Field(max_length=16)] = Field(
        {},
        description="path of a key, such as `surgery[0].insert.reduction`: a list of values, or a range; "
        "without axes the spec itself is the only cell beside the plain network",
    )
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000)] = Field(
        (0, 1, 2), description="the same for all cells: each stands for `train: seed`"
    )
    search: Literal["grid", "random", "bayesian"] = Field(
        "grid", description="every combination, random ones, or Bayesian search"
    )
    cells: Annotated[int, Field(gt=0, le=100_000)] = Field(
        20, description="random and Bayesian search: number of combinations beside the plain network"
    )
    prune: bool = Field(False, description="random and Bayesian search: stop trials that fall behind the median")
    latency: bool = Field(
        False, description="at the end, race the engines of all cells, each built of the cell's first seed"
    )
    storage: str | None = Field(
        None, description="Optuna's storage: sqlite:///FILE or postgresql://...; default: studies/NAME/journal.log"
    )

    @model_validator(mode="after")
    def _agrees(self) -> Study:
        if len(set(self.seeds)) != len(self.seeds):
            raise PydanticCustomError("excluding", "a seed stands twice", {"inner": ["seeds"]})
        if self.search != "grid" and not self.axes:
            raise PydanticCustomError("excluding", f"a {self.search} search needs axes", {"inner": ["search"]})
        ranges = [path for path, axis in self.axes.items() if isinstance(axis, Range)]
        if self.search == "grid" and ranges:
            text = f"a grid needs a list of values, and {ranges[0]!r} is a range"
            raise PydanticCustomError("excluding", text, {"inner": ["axes", ranges[0]]})
        if self.search == "grid" and self.prune:
            # The table compares cells over the same seeds: what was ended early would be missing by its score.
            raise PydanticCustomError("excluding", "a grid is not pruned", {"inner": ["prune"]})
        engines = {number: path for path in self.axes for number in engines_in(path)}
        if len(engines) > 1:
            text = (
                f"the axes are about {' and '.join(f'engines[{number}]' for number in engines)}: a cell has one engine"
            )
            raise PydanticCustomError("excluding", text, {"inner": ["axes", [*engines.values()][-1]]})
        return self
