"""Names of a package that are imported when they are first asked for, so that it costs what is used of it.

    deferred.names(__name__, {"plan": "sesurgery.pipeline.plan"})

`package.plan` and `from package import plan` then import `sesurgery.pipeline.plan` and give its `plan`. Python binds a
submodule in its package whenever anything imports it: `package.plan` would be the function or the module,
as the order of imports has it. Here a name that was promised stays what was promised.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """A module whose class Python lets us choose, as its reference says: "Customizing module attribute access"."""

    _places: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self._places:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(self._places[name]), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        submodule = sys.modules.get(f"{self.__name__}.{name}")
        if name not in self._places or value is not submodule:
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._places})


def places(module: str) -> dict[str, str]:
    """The names that `names` gave a module, each with where it lies."""
    return dict(vars(sys.modules[module])["_places"])


def names(module: str, places: Mapping[str, str]) -> None:
    """Give a module names that lie elsewhere: each with the module that it is imported from on first use."""
    own = sys.modules[module]
    vars(own)["_places"] = dict(places)
    own.__class__ = _Deferred
