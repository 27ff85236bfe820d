"""Parts of a spec used without one: a network, or rules of surgery."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sesurgery.diagnostics import Span
from sesurgery.spec.digest import digest
from sesurgery.spec.model import Model
from sesurgery.spec.surgery import Rule, rule_names


class NamesModel(Protocol):
    """What names a network: a `Spec`, or a `GivenModel`."""

    @property
    def model(self) -> Model: ...

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from."""
        ...

    def span(self, *place: str | int, key: bool = False) -> Span | None:
        """Where the value at `place` stands in a file; None if there is none."""
        ...


@dataclass(frozen=True)
class GivenModel:
    """A network that is named without a spec, as `timm:resnet18` on the command line is."""

    model: Model
    folder: Path = Path()

    def span(self, *place: str | int, key: bool = False) -> Span | None:
        return None


class NamesSurgery(Protocol):
    """What a plan is made of: a `Spec`, or a `GivenSurgery`."""

    @property
    def surgery(self) -> tuple[Rule, ...]: ...

    @property
    def digest(self) -> str: ...

    def rule_names(self) -> tuple[str, ...]:
        """A name for each rule."""
        ...

    def span(self, *place: str | int, key: bool = False) -> Span | None:
        """Where the value at `place` stands in a file; None if there is none."""
        ...


@dataclass(frozen=True)
class GivenSurgery:
    """Rules without a spec, for a network in memory."""

    surgery: tuple[Rule, ...]

    @property
    def digest(self) -> str:
        return digest(self.surgery)

    def rule_names(self) -> tuple[str, ...]:
        return rule_names(self.surgery)

    def span(self, *place: str | int, key: bool = False) -> Span | None:
        return None
