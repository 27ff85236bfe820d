"""Loading specs with everything that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sesurgery import spec as specs
from sesurgery.backends import BACKENDS
from sesurgery.blocks import BLOCKS
from sesurgery.placements import PLACEMENTS
from sesurgery.spec import Catalogs, Spec
from sesurgery.training.datasets import DATASETS


def catalogs() -> Catalogs:
    """The blocks, placements, data sets and backends that a spec may name here."""
    return Catalogs(BLOCKS, PLACEMENTS, DATASETS, BACKENDS.names())


def load_spec(given: Path | str | Mapping[str, object]) -> Spec:
    """The typed spec of a YAML file or of a mapping that holds the same; raises SpecError with every mistake."""
    return specs.load(given, catalogs())
