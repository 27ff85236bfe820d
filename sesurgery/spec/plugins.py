"""Fields of a spec that name a plugin: `se`, or `{block: se, reduction: 16}`, validated by the plugin's own dataclass.

The catalogs come in as the validation context, so that this package knows no plugin. Errors inside the options are
carried out of the validator as data and put back in their place by the loader.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import ConfigDict, PlainSerializer, PlainValidator, TypeAdapter, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError

from sesurgery.catalog import Catalog, Ref
from sesurgery.diagnostics import suggest


@dataclass(frozen=True)
class Catalogs:
    """The plugins a spec may name. Tests of planning bring their own, free of any framework."""

    blocks: Catalog[Any]
    placements: Catalog[Any]
    datasets: Catalog[Any]
    backends: tuple[str, ...]


@lru_cache(maxsize=None)
def options_adapter(plugin: type[Any]) -> TypeAdapter[Any]:
    """A pydantic adapter over a plugin's dataclass that forbids unknown keys."""
    if not hasattr(plugin, "__pydantic_config__"):
        plugin.__pydantic_config__ = ConfigDict(extra="forbid")
    return TypeAdapter(plugin)


def options_to_dict(ref: Ref[Any], key: str) -> dict[str, object]:
    """`Ref("se", SE(reduction=16))` -> `{"block": "se", "reduction": 16, ...}`, every option written out."""
    return {key: ref.name, **(dataclasses.asdict(ref.options) if ref.options is not None else {})}


def _validator(key: str, pick: Callable[[Catalogs], Catalog[Any]]) -> Callable[[Any, ValidationInfo], Ref[Any]]:
    def validate(value: Any, info: ValidationInfo) -> Ref[Any]:
        catalog = pick(_catalogs(info))
        if isinstance(value, Ref):
            value = {key: value.name} if value.options is None else options_to_dict(value, key)
        if isinstance(value, str):
            value = {key: value}
        if not isinstance(value, Mapping):
            raise PydanticCustomError(
                "plugin_type", f"expected the name of a {catalog.kind} or a mapping with '{key}:'"
            )
        if key not in value:
            raise PydanticCustomError("plugin_missing", f"missing key '{key}'", {"missing": key})
        name = value[key]
        if name not in catalog.names():
            hint = suggest(str(name), catalog.names())
            raise PydanticCustomError(
                "plugin_unknown", f"unknown {catalog.kind} {name!r}", {"hint": hint, "inner": [key]}
            )
        options = {option: given for option, given in value.items() if option != key}
        try:
            return Ref(name, options_adapter(catalog.load(name)).validate_python(options))
        except ValidationError as error:
            nested = error.errors(include_url=False)
            known = [field.name for field in dataclasses.fields(catalog.load(name))]
            raise PydanticCustomError("plugin_options", "bad options", {"errors": nested, "known": known}) from error

    return validate


def _catalogs(info: ValidationInfo) -> Catalogs:
    if not isinstance(info.context, Catalogs):
        raise TypeError("a spec is validated with its catalogs: use sesurgery.spec.load")
    return info.context


def _field(key: str, pick: Callable[[Catalogs], Catalog[Any]]) -> tuple[PlainValidator, PlainSerializer]:
    return (
        PlainValidator(_validator(key, pick), json_schema_input_type=str | dict[str, Any]),
        PlainSerializer(lambda ref: options_to_dict(ref, key), return_type=dict[str, object]),
    )


BlockField = Annotated[Ref[Any], *_field("block", lambda catalogs: catalogs.blocks)]
PlacementField = Annotated[Ref[Any], *_field("placement", lambda catalogs: catalogs.placements)]
DatasetField = Annotated[Ref[Any], *_field("dataset", lambda catalogs: catalogs.datasets)]
