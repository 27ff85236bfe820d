"""Plugins by name: a module is the plugin, its file name the public name; other packages add theirs by entry point.

Nothing is registered at import. A catalog lists names from the folder, and what each is from its file, without
importing a single plugin; it imports one when its options are asked for.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from sesurgery.diagnostics import fail, suggest

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def import_object(name: str, folders: Iterable[Path]) -> object:
    """What `package.module:attribute` names, looked for in `folders` before the Python path; importing runs its code.

    Raises whatever the import raises, and AttributeError where the module has no such attribute.
    """
    module_name, _, attribute = name.partition(":")
    before = list(sys.path)
    sys.path[:0] = [str(folder.resolve()) for folder in folders]
    try:
        return getattr(importlib.import_module(module_name), attribute)
    finally:
        sys.path[:] = before


@dataclass(frozen=True)
class Ref(Generic[T_co]):
    """A plugin as a spec names it: the name and its validated options (an instance of the plugin's dataclass)."""

    name: str
    options: T_co


class Catalog(Generic[T]):
    """The plugins of one kind: the modules of a package (but `base`), and the entry points of a group.

    A plugin module defines exactly one public subclass of `base`; `tensorrt_rtx.py` is named `tensorrt-rtx`. A folder
    beside it is not a plugin: it holds what plugins are made of. The group is named as the package unless given.
    """

    def __init__(self, package: str, base: type[T], kind: str, group: str | None = None) -> None:
        self.package = package
        self.base = base
        self.kind = kind
        self.group = group or package

    def __hash__(self) -> int:
        return hash(self.package)

    def names(self) -> tuple[str, ...]:
        """All names, sorted; imports no plugin."""
        return tuple(sorted({*self._modules(), *self._foreign()}))

    @functools.cache  # noqa: B019  (catalogs are module constants and live as long as the process)
    def load(self, name: str) -> type[T]:
        """The plugin class called `name`; raises SE105 with the nearest names when there is none."""
        modules, foreign = self._modules(), self._foreign()
        if name in modules:
            return self._plugin_of(modules[name])
        if name in foreign:
            loaded = foreign[name].load()
            if not (isinstance(loaded, type) and issubclass(loaded, self.base)):
                raise TypeError(f"entry point {self.group}:{name} is {loaded!r}, not a subclass of {self.base!r}")
            return loaded
        raise fail("SE105", f"unknown {self.kind} {name!r}", suggest(name, self.names()))

    def summary(self, name: str) -> str:
        """The first line of a plugin's docstring, read in its file; one that cannot be told from there is imported."""
        modules = self._modules()
        text = _docstring(modules[name], self.base.__name__) if name in modules else None
        lines = (text or inspect.getdoc(self.load(name)) or "").splitlines()
        return lines[0] if lines else ""

    @functools.cache  # noqa: B019
    def _modules(self) -> dict[str, str]:
        folder = importlib.import_module(self.package).__path__
        found = (info.name for info in pkgutil.iter_modules(folder) if not info.ispkg)
        return {
            name.replace("_", "-") if self.kind == "backend" else name: f"{self.package}.{name}"
            for name in found
            if name != "base" and not name.startswith("_")
        }

    @functools.cache  # noqa: B019
    def _foreign(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group)}

    def _plugin_of(self, module_name: str) -> type[T]:
        module = importlib.import_module(module_name)
        own = [
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and issubclass(value, self.base)
            and value.__module__ == module_name
            and not value.__name__.startswith("_")
        ]
        if len(own) != 1:
            raise TypeError(f"{module_name} must define one public {self.base.__name__}, found {len(own)}")
        return own[0]

    def examples(self, name: str) -> tuple[object, ...]:
        """The `EXAMPLES` at the end of the plugin's module, which the test suite runs."""
        return tuple(getattr(importlib.import_module(self.load(name).__module__), "EXAMPLES", ()))


def _docstring(module_name: str, base: str) -> str | None:
    """The docstring of a file's one public class, or of the one among several whose base is called `base`."""
    spec = importlib.util.find_spec(module_name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    public = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    if len(public) > 1:
        public = [node for node in public if base in (ast.unparse(parent).split(".")[-1] for parent in node.bases)]
    return ast.get_docstring(public[0]) if len(public) == 1 else None
