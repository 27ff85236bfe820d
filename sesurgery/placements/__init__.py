"""Placements by name."""

from sesurgery.catalog import Catalog
from sesurgery.placements.base import Placement

PLACEMENTS = Catalog("sesurgery.placements", Placement, "placement")  # type: ignore[type-abstract]
