"""Code that a spec names: the one type of such a name, and what a spec holds of it.

An option of a block, a data set or a model that is imported has the type `Factory`, and is found by it. So nothing can
be imported on behalf of a spec that `code_of` does not tell.
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


class _Imported:
    """Marks a type whose values are imported."""


_MARK = _Imported()
Factory = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"), _MARK]
"""`package.module:function`, which is imported: its module's code runs."""


def code_of(part: object) -> tuple[str, ...]:
    """Every `Factory` that a spec, or a part of one, names; each once."""
    return tuple(dict.fromkeys(_named(part)))


def location(factory: str, folders: tuple[Path, ...]) -> Path | None:
    """Where in `folders` the outermost package or module of a factory lies; None where it can only be installed."""
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


def _of_field(value: object, marks: list[Any]) -> Iterator[str]:
    yield from _strings(value) if any(_marked(mark) for mark in marks) else _named(value)


def _marked(hint: Any) -> bool:
    """Whether a type, or one inside it (`Factory | None`, `list[Factory]`), is marked."""
    if hint is _MARK:
        return True
    inner = (*getattr(hint, "__metadata__", ()), *typing.get_args(hint))
    return any(_marked(item) for item in inner if not isinstance(item, str))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in (*value.keys(), *value.values()):
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
