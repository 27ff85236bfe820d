"""Loading specs with everything that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sesurgery import spec as specs
from sesurgery.backends import BACKENDS
from sesurgery.blocks import BLOCKS
from sesurgery.lowering import PASSES
from sesurgery.placements import PLACEMENTS
from sesurgery.spec import Catalogs, Spec
from sesurgery.training.datasets import DATASETS


def catalogs() -> Catalogs:
    """The blocks, placements, data sets, backends and passes that a spec may name here."""
    # The precision is an engine's, not the file's: it is asked for there.
    passes = tuple(name for name in PASSES.names() if name != "precision")
    return Catalogs(BLOCKS, PLACEMENTS, DATASETS, BACKENDS.names(), passes)


def load_spec(given: Path | str | Mapping[str, object]) -> Spec:
    """The typed spec of a YAML file or of a mapping that holds the same; raises SpecError with every mistake."""
    return specs.load(given, catalogs())
