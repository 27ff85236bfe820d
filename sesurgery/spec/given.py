"""A network that is named: by the `model:` of a spec, or without one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sesurgery.diagnostics import Span
from sesurgery.spec.model import Model


class NamesModel(Protocol):
    """What names a network: a `Spec`, or a `GivenModel`."""

    @property
    def model(self) -> Model: ...

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from."""
        ...

    def span(self, *place: str | int, key: bool = False) -> Span | None:
        """Where the value at `place` stands in a file; None where there is none."""
        ...


@dataclass(frozen=True)
class GivenModel:
    """A network that is named without a spec, as `timm:resnet18` on the command line is."""

    model: Model
    folder: Path = Path()

    def span(self, *place: str | int, key: bool = False) -> Span | None:
        return None
