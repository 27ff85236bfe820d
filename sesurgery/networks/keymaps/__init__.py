"""Layouts of weights files, by whose they are."""

from sesurgery.catalog import Catalog
from sesurgery.networks.keymaps.base import KeyMap

KEYMAPS = Catalog("sesurgery.networks.keymaps", KeyMap, "key map", group="sesurgery.keymaps")  # type: ignore[type-abstract]
