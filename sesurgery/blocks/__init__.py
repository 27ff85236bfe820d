"""Blocks by name."""

from sesurgery.blocks.base import Block
from sesurgery.catalog import Catalog

BLOCKS = Catalog("sesurgery.blocks", Block, "block")  # type: ignore[type-abstract]
