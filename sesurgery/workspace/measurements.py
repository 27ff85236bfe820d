"""The measurement store of a run: one file for each measurement, in `reports/`.

    reports/SUBJECT.KIND.json          what was measured, and of which files (their digests)
    reports/ENGINE.not-verified.txt    why an engine was not measured

A measurement is a frozen dataclass with a field `of` that says what it was measured of. The measuring code declares the
kind beside its type. A reader gives the current `of`, so measurements of other files are never shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from sesurgery.artifacts import mistake, read_small, write_text
from sesurgery.diagnostics import clipped, fail, first_line

FOLDER = "reports"
LARGEST = 1e100
"""Above every quantity that is measured; sums, percentages and axes of a plot of larger numbers overflow."""
REASON = "not-verified.txt"


@dataclass(frozen=True)
class Of:
    """An engine, and the run's weights that it was built from, by their SHA-256."""

    engine: str
    weights: str


@dataclass(frozen=True)
class OfPlan:
    """A plan, by its digest."""

    plan: str


@dataclass(frozen=True)
class OfWeights:
    """A run's weights, by their SHA-256."""

    weights: str


class Measured(Protocol):
    """What every measurement has."""

    @property
    def of(self) -> object: ...


T = TypeVar("T", bound=Measured)


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One kind of measurement: its name in the file's name, its type, and the command that measures it again."""

    name: str
    type: type[T]
    command: str

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        return TypeAdapter(self.type)

    def file(self, run: Path, subject: str) -> Path:
        """Its path; `subject` is the engine's file name, or another thing that was measured."""
        return run / FOLDER / f"{subject}.{self.name}.json"

    def write(self, run: Path, subject: str, measured: T) -> None:
        """Store a measurement, replacing an earlier one."""
        write_text(self.file(run, subject), self._adapter.dump_json(measured, indent=2).decode() + "\n")

    def read(self, run: Path, subject: str, of: object) -> T | None:
        """The measurement `of` exactly these files; None if there is none.

        Raises SE401 for a file of another form.
        """
        found = self.stored(run, subject)
        return found if found is not None and found.of == of else None

    def stored(self, run: Path, subject: str) -> T | None:
        """The last measurement, of whatever files it was; raises SE401 for a file of another form."""
        path = self.file(run, subject)
        if not path.is_file():
            return None
        try:
            found = self._adapter.validate_json(read_small(path))
            self._require_measurable(found)
        except ValidationError as error:
            text = f"{path.as_posix()} is not what was measured: {mistake(error)}"
            raise fail("SE401", text, f"measure again, with `{self.command}`") from error
        except (OSError, ValueError) as error:
            text = f"{path.as_posix()} cannot be read: {first_line(error)}"
            raise fail("SE401", text, f"measure again, with `{self.command}`") from error
        return found

    def _require_measurable(self, found: T) -> None:
        """Raise ValueError for a number that no measurement gives."""
        config = getattr(self.type, "__pydantic_config__", {})
        # Of the other kinds NaN and infinity are not written.
        unbounded = config.get("ser_json_inf_nan") == "strings"
        for number in _numbers(self._adapter.dump_python(found)):
            if not (unbounded if number != number or abs(number) == math.inf else abs(number) <= LARGEST):
                raise ValueError(f"{clipped(str(number))} is no number that is measured")


def _numbers(data: object) -> Iterator[int | float]:
    if isinstance(data, Mapping):
        data = list(data.values())
    if isinstance(data, list | tuple):
        for item in data:
            yield from _numbers(item)
    elif isinstance(data, int | float):
        yield data


def write_reason(run: Path, engine: Path, why: str) -> None:
    """Store why an engine was not measured."""
    write_text(_reason_file(run, engine), why + "\n")


def read_reason(run: Path, engine: Path) -> str | None:
    """Why an engine was not measured, if that was stored."""
    path = _reason_file(run, engine)
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else None


def forget_reason(run: Path, engine: Path) -> None:
    """Remove the reason, as the engine has now been measured."""
    _reason_file(run, engine).unlink(missing_ok=True)


def forget(run: Path, engine: Path) -> None:
    """Remove all measurements of an engine that is gone."""
    for path in (run / FOLDER).glob("*.json") if (run / FOLDER).is_dir() else ():
        if path.name.removesuffix(".json").rpartition(".")[0] == engine.name:
            path.unlink(missing_ok=True)
    forget_reason(run, engine)


def _reason_file(run: Path, engine: Path) -> Path:
    return run / FOLDER / f"{engine.name}.{REASON}"
