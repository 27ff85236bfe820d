"""Change a spec's data by paths: `{"surgery[0].insert.reduction": 8}`.

Short forms and defaults are expanded as far as a path needs: `insert: se` becomes `insert: {block: se, reduction: 8}`.
The loader validates the result.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from sesurgery.catalog import Ref
from sesurgery.diagnostics import Diagnostic, SpecError

Steps = tuple[str | int, ...]
_PATH = re.compile(r"[^.\[\]]+(\[\d+\])*(\.[^.\[\]]+(\[\d+\])*)*")
_MISSING = object()


class NoSuchPathError(SpecError):
    """A path that does not exist in a spec."""


def changed(data: Mapping[str, Any], spec: BaseModel, changes: Mapping[str, object]) -> dict[str, Any]:
    """A copy of a spec's data with all changes applied in order; `spec` is the typed form of the data.

    Raises NoSuchPathError (SE101) with all paths that do not exist.
    """
    made = copy.deepcopy(dict(data))
    mistakes = []
    for path, value in changes.items():
        try:
            _put(made, spec, path, copy.deepcopy(value))
        except LookupError as error:
            hint = "a path is keys and indices that count from 0, as in 'surgery[0].insert.reduction'"
            mistakes.append(Diagnostic("SE101", f"{path!r} leads nowhere: {error.args[0]}", hint=hint))
    if mistakes:
        raise NoSuchPathError(mistakes)
    return made


def steps(path: str) -> Steps:
    """`"surgery[0].insert"` -> `("surgery", 0, "insert")`; raises LookupError for what is not a path."""
    if not _PATH.fullmatch(path):
        raise LookupError("it is not a path")
    return tuple(int(part) if part.isdigit() and mark else part for mark, part in re.findall(r"(\[)?([^.\[\]]+)", path))


def _put(data: Any, spec: object, path: str, value: object) -> None:
    way = steps(path)
    node, meaning = data, spec
    for depth, step in enumerate(way[:-1]):
        here, found = way[: depth + 1], _at(node, step, way[:depth])
        inner = _at_meaning(meaning, step)
        if isinstance(way[depth + 1], int):
            node[step] = _as_list(found, inner, here)
        else:
            node[step] = _as_mapping(found, inner, _plugin_key(meaning, step), here)
        node, meaning = node[step], inner
    _at(node, way[-1], way[:-1])
    node[way[-1]] = value


def _at(node: Any, step: str | int, place: Steps) -> object:
    """The value at a step, `_MISSING` for a missing key; raises LookupError if the step is impossible."""
    if isinstance(step, int):
        if step >= len(node):
            raise LookupError(f"{_shown(place)} has {len(node)} {'entry' if len(node) == 1 else 'entries'}")
        return node[step]
    return node.get(step, _MISSING)


def _at_meaning(meaning: object, step: str | int) -> object:
    """The typed value at a step, None if the spec has none."""
    if isinstance(meaning, Ref):
        return getattr(meaning.options, str(step), None)
    if isinstance(meaning, BaseModel):
        names = {field.alias or name: name for name, field in type(meaning).model_fields.items()}
        return getattr(meaning, names[str(step)], None) if step in names else None
    if isinstance(meaning, Mapping):
        return meaning.get(step)
    inside = isinstance(meaning, Sequence) and isinstance(step, int) and step < len(meaning)
    return meaning[step] if inside else None  # type: ignore[index]


def _as_list(found: object, meaning: object, place: Steps) -> list[Any]:
    if isinstance(found, list):
        return found
    items = list(meaning) if isinstance(meaning, tuple | list) else None
    if items is None or isinstance(found, dict):
        raise LookupError(f"{_shown(place)} is not a list")
    # One value may stand for a list of one, and a default is not written.
    return [_written(item) for item in items] if found is _MISSING else [found]


def _as_mapping(found: object, meaning: object, plugin: str | None, place: Steps) -> dict[str, Any]:
    if isinstance(found, dict):
        return found
    if plugin is not None and isinstance(found, str):
        return {plugin: found}
    if found is _MISSING:
        if plugin is not None and isinstance(meaning, Ref):
            return {plugin: meaning.name}
        # What a default says in its place, a tolerance of a precision, say, would not be said of a mapping written out.
        return _written(meaning) if isinstance(meaning, BaseModel) else {}
    raise LookupError(f"{_shown(place)} is {'a list' if isinstance(found, list) else repr(found)}, and has no keys")


def _plugin_key(meaning: object, step: str | int) -> str | None:
    """The key under which a plugin is named (`block`, `dataset`), where a plugin stands at this step."""
    if not isinstance(meaning, BaseModel) or not isinstance(_at_meaning(meaning, step), Ref):
        return None
    return str(next(iter(meaning.model_dump(mode="json", by_alias=True)[str(step)])))


def _written(item: Any) -> Any:
    return item.model_dump(mode="json", by_alias=True, exclude_unset=True) if isinstance(item, BaseModel) else item


def _shown(place: Steps) -> str:
    return repr("".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix("."))
