"""A default of the spec never changes: it is not part of a spec's digest (decision 0018). Options may be added."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path

from sesurgery import spec
from sesurgery.backends import BACKENDS
from sesurgery.blocks import BLOCKS
from sesurgery.placements import PLACEMENTS
from sesurgery.spec.choice import AUTO, Auto
from sesurgery.spec.digest import without_defaults
from sesurgery.spec.frozen import Frozen
from sesurgery.training.data import DATASETS

GOLDEN = Path(__file__).parent / "golden" / "defaults.json"


def sections() -> Iterator[tuple[str, object]]:
    for module in pkgutil.iter_modules(spec.__path__, "sesurgery.spec."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, type) and issubclass(value, Frozen):
                for key, field in value.model_fields.items():
                    # A section whose default is made by its class has those that are named beside it.
                    if not field.is_required() and not isinstance(field.default_factory, type):
                        yield f"{name}.{field.alias or key}", field.get_default(call_default_factory=True)


def plugins() -> Iterator[tuple[str, object]]:
    kinds = [(catalog.kind, name, catalog.load(name)) for catalog in CATALOGS for name in catalog.names()]
    for kind, name, plugin in [*kinds, ("backend", AUTO, Auto)]:
        for item in dataclasses.fields(plugin):
            if item.default_factory is not dataclasses.MISSING:
                yield f"{kind} {name}.{item.name}", item.default_factory()
            elif item.default is not dataclasses.MISSING:
                yield f"{kind} {name}.{item.name}", item.default


CATALOGS = (BLOCKS, PLACEMENTS, BACKENDS, DATASETS)


def test_no_default_has_changed_and_new_options_are_written_down(update_golden):
    found = {name: without_defaults(value) for name, value in sorted({**dict(sections()), **dict(plugins())}.items())}
    if update_golden:
        lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    known = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert {name: found.get(name, "gone") for name in known} == known
    assert sorted(found.keys() - known.keys()) == [], "write new options down with --update-golden"
