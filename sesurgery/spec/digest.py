"""A spec without its defaults, and its digest. Options that a later version adds change neither.

Defaults that differ from place to place (each precision has its own tolerance) are those of the place. The default of
an option never changes (decision 0018), so a missing key means the same in every version.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from sesurgery.artifacts import digest_text
from sesurgery.catalog import Ref


def digest(part: object) -> str:
    """SHA-256 of the content of a spec or a part of one, independent of its formatting."""
    return digest_text(json.dumps(without_defaults(part), sort_keys=True))


def without_defaults(part: Any) -> JsonValue:
    """A part of a spec as JSON without defaults; for a plugin, its name and the options that differ."""
    if isinstance(part, BaseModel):
        fields = type(part).model_fields
        found = {
            field.alias or name: value
            for name, field in fields.items()
            if (value := without_defaults(getattr(part, name))) != _default(field)
        }
        alone = getattr(part, "alone", "")
        return found[alone] if found.keys() == {alone} else found
    if isinstance(part, Ref):
        options = without_defaults(part.options)
        return {part.name: options} if options else part.name
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return {
            item.name: value
            for item in dataclasses.fields(part)
            if (value := without_defaults(getattr(part, item.name))) != _default_option(item)
        }
    if isinstance(part, Mapping):
        return {str(key): without_defaults(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [without_defaults(value) for value in part]
    # A number, a text, a truth value or nothing: no option is anything else.
    return part  # type: ignore[no-any-return]


_REQUIRED = object()


def _default(field: FieldInfo) -> object:
    """What `without_defaults` gives for a field that is left out; `{}` for a section that is made by its class."""
    if isinstance(field.default_factory, type) and issubclass(field.default_factory, BaseModel):
        return {}
    return _REQUIRED if field.is_required() else without_defaults(field.get_default(call_default_factory=True))


def _default_option(item: dataclasses.Field[Any]) -> object:
    if item.default_factory is not dataclasses.MISSING:
        return without_defaults(item.default_factory())
    return _REQUIRED if item.default is dataclasses.MISSING else without_defaults(item.default)
