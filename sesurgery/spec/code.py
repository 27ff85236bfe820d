"""Code that a spec names: the types of such names, and what a spec holds of them.

An option of a block, a data set or a model that is imported has the type `Factory`, and one that may be a shell command
the type `Command`. So nothing can run on behalf of a spec that `code_of` does not tell.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from sesurgery.catalog import Ref


class _Runs:
    """Marks a type whose values are imported or, with a prefix, those that begin with it run in a shell."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix


SHELL = "pipe:"
_IMPORTED, _MAYBE_RUN = _Runs(), _Runs(SHELL)
Factory = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"), _IMPORTED]
"""`package.module:function`, which is imported: its module's code runs."""
Command = Annotated[str, Field(min_length=1), _MAYBE_RUN]
"""A file or a url, or `pipe:` and a command, which a shell runs."""


def code_of(part: object) -> tuple[str, ...]:
    """Every `Factory`, and every `Command` that a shell runs, in a spec or a part of one; each once."""
    return tuple(dict.fromkeys(_named(part)))


def location(factory: str, folders: tuple[Path, ...]) -> Path | None:
    """Where in `folders` the outermost package or module of a factory lies.

    None where it can only be installed, and for a shell command, whose text is all there is.
    """
    if factory.startswith(SHELL):
        return None
    top = factory.partition(":")[0].partition(".")[0]
    for folder in folders:
        found = PathFinder.find_spec(top, [str(folder.resolve())])
        if found is not None:
            places = [found.origin, *(found.submodule_search_locations or ())]
            return Path(next(str(place) for place in places if place)).resolve()
    return None


def _named(part: object) -> Iterator[str]:
    if isinstance(part, Ref):
        yield from _named(part.options)
    elif isinstance(part, BaseModel):
        for name, field in type(part).model_fields.items():
            yield from _of_field(getattr(part, name), [*field.metadata, field.annotation])
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        hints = typing.get_type_hints(type(part), include_extras=True)
        for item in dataclasses.fields(part):
            yield from _of_field(getattr(part, item.name), [hints[item.name]])
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _named(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _named(value)


def _of_field(value: object, hints: list[Any]) -> Iterator[str]:
    marks = [mark for hint in hints for mark in _marks(hint)]
    if not marks:
        yield from _named(value)
    for mark in marks:
        yield from (text for text in _strings(value) if text.startswith(mark.prefix))


def _marks(hint: Any) -> Iterator[_Runs]:
    """The marks of a type, or of one inside it (`Factory | None`, `list[Factory]`)."""
    if isinstance(hint, _Runs):
        yield hint
    for inner in (*getattr(hint, "__metadata__", ()), *typing.get_args(hint)):
        if not isinstance(inner, str):
            yield from _marks(inner)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in (*value.keys(), *value.values()):
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
