"""The spec's JSON Schema with the options of all plugins, for completion and checks in editors."""

from __future__ import annotations

from typing import Any

from sesurgery.spec.plugins import EXISTING, Catalogs, Named, engine_makers, options_adapter
from sesurgery.spec.spec import Spec

TITLE = "sesurgery spec"
"""Marks a file as written by this program."""
SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"


def json_schema(catalogs: Catalogs) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a spec file, with the blocks, placements, data sets and backends there are."""
    schema = Spec.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    for name in ("InsertRule", "RemoveRule", "ReplaceRule"):
        _complete_rule(definitions[name]["properties"], catalogs, definitions)
    definitions["Train"]["properties"]["data"].update(_choice("dataset", catalogs.datasets, definitions))
    if catalogs.presets is not None:
        presets = _choice("preset", catalogs.presets, definitions)
        definitions["Train"]["properties"]["preset"].update({**presets, "type": ["string", "object", "null"]})
    if catalogs.keymaps is not None:
        maps = _choice("map", catalogs.keymaps, definitions)
        _or_one(definitions["Checkpoint"]["properties"]["except"])
        definitions["Checkpoint"]["properties"]["keys"].update({**maps, "type": ["string", "object", "null"]})
    definitions["Engine"]["properties"]["backend"].update(
        _choice("backend", engine_makers(catalogs.backends), definitions)
    )
    return {"$schema": SCHEMA_ID, **schema, "title": TITLE}


def _complete_rule(rule: dict[str, Any], catalogs: Catalogs, definitions: dict[str, Any]) -> None:
    if "insert" in rule:
        rule["insert"].update(_choice("block", catalogs.blocks, definitions))
    if "at" in rule:
        rule["at"].update(_choice("placement", catalogs.placements, definitions))
    for key in ("remove", "replace"):
        if key in rule:
            names = {"enum": list(EXISTING)}
            mapping = {
                "type": "object",
                "properties": {"block": names},
                "required": ["block"],
                "additionalProperties": False,
            }
            rule[key].update({"anyOf": [names, mapping], "type": ["string", "object"]})
    for key in ("within", "except"):
        _or_one(rule[key])


def _or_one(globs: dict[str, Any]) -> None:
    globs["anyOf"] = [{"type": "string"}, *globs["anyOf"]]


def _choice(key: str, catalog: Named, definitions: dict[str, Any]) -> dict[str, Any]:
    names = list(catalog.names())
    plain: list[str] = []
    mappings: list[dict[str, Any]] = []
    for name in names:
        options = options_adapter(catalog.load(name)).json_schema(ref_template="#/$defs/{model}")
        definitions.update(options.pop("$defs", {}))
        required = options.get("required", [])
        if not required:
            plain.append(name)
        properties = {key: {"const": name}, **options.get("properties", {})}
        mappings.append({**options, "title": name, "properties": properties, "required": [key, *required]})
    return {"anyOf": [{"enum": plain}, *mappings], "type": ["string", "object"]}
