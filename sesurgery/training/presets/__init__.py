"""Whole recipes by name."""

from sesurgery.catalog import Catalog
from sesurgery.training.presets.base import Preset

PRESETS = Catalog("sesurgery.training.presets", Preset, "preset", group="sesurgery.presets")  # type: ignore[type-abstract]
