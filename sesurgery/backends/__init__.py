"""Engines by name."""

from sesurgery.backends.base import Backend
from sesurgery.catalog import Catalog

BACKENDS = Catalog("sesurgery.backends", Backend, "backend")  # type: ignore[type-abstract]
