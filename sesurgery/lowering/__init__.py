"""Lowering passes by name."""

from sesurgery.catalog import Catalog
from sesurgery.lowering.base import Pass

PASSES = Catalog("sesurgery.lowering", Pass, "pass")  # type: ignore[type-abstract]
