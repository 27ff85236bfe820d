"""Fields of a spec that name a plugin: `se`, or `{block: se, reduction: 16}`, validated by the plugin's own dataclass.

The catalogs are the validation context, so this package does not depend on any plugin. Errors in a plugin's options
leave the validator as data, and the loader puts them at their place.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from sesurgery.catalog import Catalog, Ref
from sesurgery.diagnostics import clipped, suggest
from sesurgery.spec.choice import AUTO, Auto
from sesurgery.spec.passes import pass_named


@dataclass(frozen=True)
class Catalogs:
    """The plugins a spec may name. Tests of planning bring their own, free of any framework."""

    blocks: Catalog[Any]
    placements: Catalog[Any]
    datasets: Catalog[Any]
    backends: Catalog[Any]
    passes: tuple[str, ...] = ()
    presets: Catalog[Any] | None = None
    keymaps: Catalog[Any] | None = None


class Choices:
    """The plugins of a catalog, and what may be named in their place: classes of options, by name."""

    def __init__(self, catalog: Catalog[Any], others: Mapping[str, type]) -> None:
        self.catalog, self.others, self.kind = catalog, others, catalog.kind

    def names(self) -> tuple[str, ...]:
        return tuple(sorted({*self.catalog.names(), *self.others}))

    def load(self, name: str) -> type[Any]:
        return self.others[name] if name in self.others else self.catalog.load(name)

    def summary(self, name: str) -> str:
        """The first line of its docstring."""
        if name in self.others:
            return (inspect.getdoc(self.others[name]) or "").partition("\n")[0]
        return self.catalog.summary(name)


Named = Catalog[Any] | Choices


def engine_makers(backends: Catalog[Any]) -> Choices:
    """What `backend:` may name: each backend, and `auto`."""
    return Choices(backends, {AUTO: Auto})


def options_adapter(plugin: Any) -> TypeAdapter[Any]:
    """A pydantic adapter over a plugin's dataclass that takes JSON types strictly and forbids unknown keys."""
    return _adapter(plugin)


@functools.cache
def _adapter(plugin: Any) -> TypeAdapter[Any]:
    if "__pydantic_config__" not in vars(plugin):
        plugin.__pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)
    return TypeAdapter(plugin)


def options_to_dict(ref: Ref[Any], key: str) -> dict[str, object]:
    """`Ref("se", SE(reduction=16))` -> `{"block": "se", "reduction": 16, ...}`, every option written out."""
    return {key: ref.name, **dataclasses.asdict(ref.options)}


def ref_from_dict(given: Mapping[str, object], key: str, catalog: Named) -> Ref[Any]:
    """The inverse of `options_to_dict`; raises pydantic's ValidationError on options that do not fit."""
    options = {option: value for option, value in given.items() if option != key}
    name = str(given[key])
    # Through JSON, because a list is valid for a tuple there while everything else stays strict.
    return Ref(name, options_adapter(catalog.load(name)).validate_json(json.dumps(options)))


def _validator(key: str, pick: Callable[[Catalogs], Named]) -> Callable[[Any, ValidationInfo], Ref[Any]]:
    def validate(value: Any, info: ValidationInfo) -> Ref[Any]:
        if isinstance(value, Ref):
            return value
        catalog = pick(_catalogs(info))
        inner = [key] if isinstance(value, Mapping) else []
        if isinstance(value, str):
            value = {key: value}
        if not isinstance(value, Mapping):
            raise PydanticCustomError(
                "plugin_type",
                f"expected the name of a {catalog.kind}, or a mapping with '{key}:'",
            )
        if key not in value:
            raise PydanticCustomError("plugin_missing", f"missing key '{key}'", {"missing": key})
        if value[key] not in catalog.names():
            hint = suggest(str(value[key]), catalog.names())
            text = f"unknown {catalog.kind} {clipped(repr(value[key]))}"
            raise PydanticCustomError("plugin_unknown", text, {"hint": hint, "inner": inner})
        try:
            return ref_from_dict(value, key, catalog)
        except ValidationError as error:
            nested = error.errors(include_url=False)
            known = [key, *(field.name for field in dataclasses.fields(catalog.load(value[key])))]
            raise PydanticCustomError("plugin_options", "bad options", {"errors": nested, "known": known}) from None

    return validate


def _catalogs(info: ValidationInfo) -> Catalogs:
    if not isinstance(info.context, Catalogs):
        raise TypeError("a spec is validated with its catalogs: use sesurgery.spec.load")
    return info.context


def _field(key: str, pick: Callable[[Catalogs], Named]) -> tuple[PlainValidator, PlainSerializer]:
    return (
        PlainValidator(_validator(key, pick), json_schema_input_type=str | dict[str, Any]),
        PlainSerializer(lambda ref: options_to_dict(ref, key), return_type=dict[str, object]),
    )


def _optional(key: str, pick: Callable[[Catalogs], Named | None]) -> tuple[PlainValidator, PlainSerializer]:
    """The same for an optional plugin; tests of planning have no catalog for it."""

    def validate(value: Any, info: ValidationInfo) -> Ref[Any] | None:
        if value is None:
            return None
        catalog = pick(_catalogs(info))
        if catalog is None:
            raise PydanticCustomError("plugin_type", f"there is no {key} to be named here")
        return _validator(key, lambda _: catalog)(value, info)

    return (
        PlainValidator(validate, json_schema_input_type=str | dict[str, Any] | None),
        PlainSerializer(
            lambda ref: None if ref is None else options_to_dict(ref, key), return_type=dict[str, object] | None
        ),
    )


def on_its_preset(train: Any, catalogs: Catalogs) -> Any:
    """The section `train:` merged with its preset; unchanged if it names no known preset."""
    named = train.get("preset") if isinstance(train, Mapping) else None
    given = {"preset": named} if isinstance(named, str) else named
    if (
        catalogs.presets is None
        or not isinstance(given, Mapping)
        or given.get("preset") not in catalogs.presets.names()
    ):
        return train
    try:
        return ref_from_dict(given, "preset", catalogs.presets).options.beneath(train)
    except ValidationError:
        # Mistakes in its options are reported when the key itself is validated.
        return train


def _passes(value: object, info: ValidationInfo) -> tuple[str, ...] | None:
    if value is None or (isinstance(value, tuple) and info.context is None):
        return value
    if value == "none":
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise PydanticCustomError("plugin_type", "expected a list of lowering passes, or 'none'")
    known = _catalogs(info).passes
    for index, text in enumerate(value):
        try:
            name = pass_named(text).name
        except ValueError as error:
            raise PydanticCustomError("plugin_type", clipped(str(error)), {"inner": [index]}) from error
        if name not in known:
            hint = {"hint": suggest(name, known), "inner": [index]}
            raise PydanticCustomError("plugin_unknown", f"unknown pass {clipped(repr(name))}", hint)
    return tuple(value)


EXISTING = ("se", "effective_se", "any")
"""Channel gates that can be named for removal: two projections, one, or any number."""


def _existing(value: object) -> str:
    name = value.get("block") if isinstance(value, Mapping) else value
    extra = [key for key in value if key != "block"] if isinstance(value, Mapping) else []
    if extra:
        text = f"only 'block' can be said of what is taken out, found {extra[0]!r}"
        raise PydanticCustomError("excluding", text)
    if name not in EXISTING:
        inner = ["block"] if isinstance(value, Mapping) and "block" in value else []
        hint = suggest(str(name), EXISTING)
        raise PydanticCustomError(
            "plugin_unknown", f"unknown kind of gate {clipped(repr(name))}", {"hint": hint, "inner": inner}
        )
    return str(name)


ExistingField = Annotated[str, PlainValidator(_existing, json_schema_input_type=str | dict[str, str])]
PassesField = Annotated[
    tuple[str, ...] | None,
    PlainValidator(_passes, json_schema_input_type=list[str] | Literal["none"] | None),
    # pydantic warns of its own doing where it writes the tuple of a union as a list.
    PlainSerializer(lambda names: None if names is None else list(names), return_type=list[str] | None),
]
"""Names of lowering passes, with options if any; `none` means no passes, None leaves the choice to the backend."""
BlockField = Annotated[Ref[Any], *_field("block", lambda catalogs: catalogs.blocks)]
PlacementField = Annotated[Ref[Any], *_field("placement", lambda catalogs: catalogs.placements)]
BackendField = Annotated[Ref[Any], *_field("backend", lambda catalogs: engine_makers(catalogs.backends))]
DatasetField = Annotated[Ref[Any], *_field("dataset", lambda catalogs: catalogs.datasets)]
PresetField = Annotated[Ref[Any] | None, *_optional("preset", lambda catalogs: catalogs.presets)]
KeysField = Annotated[Ref[Any] | None, *_optional("map", lambda catalogs: catalogs.keymaps)]
