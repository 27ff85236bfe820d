"""Loading specs with everything that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sesurgery import spec as specs
from sesurgery.backends import BACKENDS
from sesurgery.blocks import BLOCKS
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.lowering import PASSES
from sesurgery.networks.keymaps import KEYMAPS
from sesurgery.placements import PLACEMENTS
from sesurgery.serving.loadable import backend_of
from sesurgery.spec import Catalogs, Spec
from sesurgery.spec.engines import Engine
from sesurgery.spec.ignored import require_effect
from sesurgery.studies.cells import require_axes
from sesurgery.training.data import DATASETS
from sesurgery.training.presets import PRESETS
from sesurgery.workspace import EngineManifest

__all__ = ["backend_of", "catalogs", "engine", "engine_of", "load_spec"]


def catalogs() -> Catalogs:
    """The blocks, placements, data sets, backends, passes, presets and key maps that a spec may name here."""
    # Precisions are not passes of a spec: each engine names its own.
    return Catalogs(BLOCKS, PLACEMENTS, DATASETS, BACKENDS, PASSES.names(), PRESETS, KEYMAPS)


def load_spec(given: Path | str | Mapping[str, object]) -> Spec:
    """The typed spec of a YAML file or of a mapping that holds the same; raises SpecError with every mistake."""
    spec = specs.load(given, catalogs())
    require_axes(spec)
    require_effect(spec)
    return spec


def engine(given: Mapping[str, object] | None = None) -> Engine:
    """One engine from the data of an entry of `engines:`; raises SpecError with every mistake."""
    return specs.load_engine(dict(given or {}), catalogs())


def engine_of(manifest: EngineManifest) -> Engine:
    """What was asked for when an engine was built."""
    try:
        return engine(manifest.details.engine.model_dump(mode="json"))
    except SesurgeryError as error:
        text = f"the manifest of {manifest.file} does not say what engine it is: {error.diagnostics[0].message}"
        raise fail("SE401", text, f"build it again: {manifest.command}") from error
