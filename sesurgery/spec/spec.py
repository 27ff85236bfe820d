"""The typed spec: frozen pydantic models whose fields are the YAML keys, each with a description.

This package does not depend on plugins (blocks, placements): the loader validates their options against the plugin's
own dataclass, and the fields hold a `Ref`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from sesurgery.diagnostics import Span
from sesurgery.spec.bounds import MOST_CHECKED, MOST_ENGINES, MOST_RULES, Short
from sesurgery.spec.changes import changed
from sesurgery.spec.digest import digest
from sesurgery.spec.engines import Engine
from sesurgery.spec.export import Export
from sesurgery.spec.frozen import Frozen
from sesurgery.spec.input import Input
from sesurgery.spec.latency import Latency
from sesurgery.spec.model import Model
from sesurgery.spec.parity import Parity
from sesurgery.spec.source import SpecText
from sesurgery.spec.study import Study
from sesurgery.spec.surgery import RuleField, rule_names
from sesurgery.spec.train import Train

CHANGED = " (changed)"
"""Suffix of the file's name in errors of a changed spec."""


class Spec(Frozen):
    """A whole spec: the network, which blocks go where, and how the result is trained, exported, built and checked."""

    version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$"), Short] = Field(
        "", description="names the artefacts; default: the file's stem", validate_default=False
    )
    model: Model
    input: Input
    surgery: Annotated[tuple[RuleField, ...], Field(min_length=1, max_length=MOST_RULES)]
    train: Train = Field(default_factory=Train)
    export: Export = Field(default_factory=Export)
    # The loader puts one engine with all defaults here: defaults that name a plugin need the catalogs.
    engines: Annotated[tuple[Engine, ...], Field(min_length=1, max_length=MOST_ENGINES)] = ()
    parity: Parity = Field(default_factory=Parity)
    latency: Latency = Field(default_factory=Latency)
    study: Study | None = None

    _source: SpecText | None = PrivateAttr(default=None)
    _written: dict[str, Any] | None = PrivateAttr(default=None)
    _load: Callable[[dict[str, Any], str], Spec] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _engines_have_their_own_files(self) -> Spec:
        seen: set[tuple[object, ...]] = set()
        for engine in self.engines:
            who = (engine.backend.name, engine.precision, engine.name)
            if who in seen:
                text = f"two engines would be one file: {engine.backend.name} {engine.precision}"
                raise PydanticCustomError("excluding", f"{text}; tell them apart by 'name:'")
            seen.add(who)
        return self

    @model_validator(mode="after")
    def _checks_fit_in_memory(self) -> Spec:
        most = max(1, MOST_CHECKED // math.prod(self.input.shape))
        if (found := max(self.export.check_batches)) > most:
            shape = "x".join(map(str, self.input.shape))
            text = f"'export: check_batches' of an input of {shape} are at most {most}, found {found}"
            raise PydanticCustomError("excluding", text, {"inner": ["export", "check_batches"]})
        return self

    def remember(
        self, source: SpecText | None, written: dict[str, Any] | None, load: Callable[[dict[str, Any], str], Spec]
    ) -> None:
        """Keep the file's marks, so that later errors can point at it, and its data; None if there is no complete data.

        `load` makes a spec of other data: it is given the data and the name of the file that they are from.
        """
        self._source, self._written, self._load = source, written, load

    def with_(self, changes: Mapping[str, object]) -> Spec:
        """The spec with other values at some places: `spec.with_({"surgery[0].insert.reduction": 8})`.

        It is validated like a file, and has its own text (new YAML), digest and marks. Relative paths start from the
        same folder. Raises SpecError with every mistake, including paths that do not exist.
        """
        if self._load is None:
            raise TypeError("a spec is changed with the plugins that it was loaded with: use sesurgery.load_spec")
        written = self.model_dump(mode="json", by_alias=True) if self._written is None else self._written
        file = self._source.file if self._source else "spec"
        # The name is the file's where none is written, and stays.
        named = {"version": self.version, "name": self.name, **written}
        return self._load(changed(named, self, changes), file if file.endswith(CHANGED) else file + CHANGED)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Spec:
        """pydantic's copy without validation; a copy with other content has no file text."""
        copied = super().model_copy(update=update, deep=deep)
        if update:
            copied._written = None
        return copied

    def span(self, *place: str | int, key: bool = False) -> Span | None:
        """Where the value at `place` (or its key) stands in the file; None for a spec that came from no file."""
        return self._source.span(place, key=key) if self._source else None

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the spec start from."""
        return Path(self._source.file).parent if self._source else Path()

    def text(self) -> str:
        """The spec as YAML: the file's own text, comments and all, or JSON (which is YAML) if there was no file."""
        if self._source is None or self._written is None:
            return self.model_dump_json(by_alias=True, indent=2) + "\n"
        return self._source.text

    @property
    def digest(self) -> str:
        """SHA-256 of the spec's content, independent of its formatting; missing options are not part of it."""
        return digest(self)

    def rule_names(self) -> tuple[str, ...]:
        """The rules' names: as given, else the block's name; a second rule of the same name becomes `se_2`."""
        return rule_names(self.surgery)
