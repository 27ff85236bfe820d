"""Whether an engine may be loaded here: by its manifest, its backend, and the version and device it was built for."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from sesurgery.artifacts import mistake
from sesurgery.backends import BACKENDS
from sesurgery.backends.base import Backend
from sesurgery.diagnostics import SesurgeryError, fail, suggest
from sesurgery.serving.ingredients import built_here
from sesurgery.spec.plugins import ref_from_dict
from sesurgery.workspace import EngineManifest, require_intact, require_trusted


def backend_of(manifest: EngineManifest) -> Backend:
    """The backend that built an engine, with the options it was built with."""
    given = manifest.details.engine.backend
    if given.backend not in BACKENDS.names():
        text = f"the manifest of {manifest.file} names a backend that is not known here: {given.backend!r}"
        raise fail("SE401", text, suggest(given.backend, BACKENDS.names()))
    try:
        backend: Backend = ref_from_dict(given.model_dump(mode="json"), "backend", BACKENDS).options
    except (ValidationError, SesurgeryError) as error:
        why = mistake(error) if isinstance(error, ValidationError) else error.diagnostics[0].message
        text = f"the manifest of {manifest.file} has options that {given.backend} does not take"
        raise fail("SE401", f"{text}: {why}", f"build it again: {manifest.command}") from error
    return backend


def require_loadable(engine: Path, *, foreign: bool = False) -> EngineManifest:
    """The manifest of an engine that is intact and was built by this version for this device.

    With `foreign`, an engine of another version or device is accepted too. An engine without a manifest, or whose bytes
    have changed, never is. Raises SE401 for a file that is not intact, SE603 for another version or device, and SE409
    for machine code that was not built here and that the user has not agreed to run.
    """
    manifest = require_intact(engine, EngineManifest)
    backend = backend_of(manifest)
    if backend.native:
        require_trusted(engine, manifest, f"an engine of {manifest.details.backend} is loaded and run as it is")
    if foreign:
        return manifest
    written = manifest.details.ingredients
    for what, found in built_here(manifest.details.backend, backend).items():
        # A library that is missing here is not compared: loading the engine reports it.
        if written.get(what) != found:
            before = written.get(what) or "not written down"
            text = f"{engine} is from elsewhere: {what} was {before}, here it is {found}"
            raise fail("SE603", text, f"build it here: `{manifest.command}`; or take it as it is with --foreign")
    return manifest
