"""The manifest of an engine: which backend built it, with which version, for which device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sesurgery import trust
from sesurgery.artifacts import Manifest, cpu_kind, cpu_name, mistake, require_intact, require_trusted
from sesurgery.backends import BACKENDS
from sesurgery.backends.base import Backend
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.paths import inside
from sesurgery.spec.plugins import ref_from_dict

VERSION = "the backend's version"
DEVICE = "the device"
INGREDIENTS = "ingredients"
"""Where an engine's manifest says what decided its bytes."""


def backend_of(manifest: Manifest) -> Backend:
    """The backend that built an engine, with the options it was built with."""
    given: Any = manifest.details.get("engine")
    if not isinstance(given, Mapping):
        text = f"the manifest of {manifest.file} does not say what engine it is"
        raise fail("SE401", text, f"build it again: {manifest.command}")
    try:
        backend: Backend = ref_from_dict(given["backend"], "backend", BACKENDS).options
    except (ValidationError, SesurgeryError) as error:
        why = mistake(error) if isinstance(error, ValidationError) else error.diagnostics[0].message
        text = f"the manifest of {manifest.file} names a backend, or options of one, that is not here: {why}"
        raise fail("SE401", text, f"build it again: {manifest.command}") from error
    return backend


def run_folder(engine: Path, manifest: Manifest) -> Path | None:
    """The folder of the run that an artefact came from, as its manifest says, or None where it came from none.

    Results are written there: one that was not made here, and that nobody vouches for, may name a folder below the
    current one alone. Raises SE408 otherwise.
    """
    folder = manifest.details.get("run")
    if not folder:
        return None
    if manifest.made_here or trust.is_agreed(engine):
        return Path(str(folder))
    return inside(Path(), str(folder), f"the run of {engine.as_posix()}")


def machine(backend: Backend) -> str:
    """The device that a backend builds for, told apart by what decides an engine and not by how many cores are free."""
    device = backend.device()
    return cpu_kind() if device == cpu_name() else device


def here(name: str, backend: Backend) -> dict[str, str]:
    """Version and device as they are here; what cannot be asked for here is left out."""
    ability = backend.probe()
    found = {} if ability.version is None else {VERSION: f"{name} {ability.version}"}
    return found if ability.builds is not None else {**found, DEVICE: machine(backend)}


def require_at_home(engine: Path, *, foreign: bool = False) -> Manifest:
    """The manifest of an engine that is intact, and was built by this version for this device; raises SE401 and SE603.

    With `foreign`, one that another version or another device has built is taken as well. One whose bytes are not
    those that were written, or that has no manifest, never is: nobody could say what it is. Raises SE409 for machine
    code of somebody else that nobody agreed to run.
    """
    manifest = require_intact(engine)
    backend = backend_of(manifest)
    if backend.native:
        require_trusted(engine, manifest, f"an engine of {manifest.details['backend']} is loaded and run as it is")
    if foreign:
        return manifest
    written: Any = manifest.details.get(INGREDIENTS) or {}
    for what, found in here(str(manifest.details.get("backend")), backend).items():
        # Only what is missing here is not compared: loading the engine will say so.
        if written.get(what) != found:
            before = written.get(what) or "not written down"
            text = f"{engine} is from elsewhere: {what} was {before}, here it is {found}"
            raise fail("SE603", text, f"build it here: `{manifest.command}`; or take it as it is with --foreign")
    return manifest
