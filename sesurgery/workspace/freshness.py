"""Whether an engine on disk is up to date, and built from its run's current weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sesurgery.artifacts import digest_file
from sesurgery.diagnostics import Diagnostic, SesurgeryError
from sesurgery.workspace.manifest_files import require_intact
from sesurgery.workspace.manifests import EngineManifest, RunManifest


class StaleEngine(SesurgeryError):  # noqa: N818  (an engine's state)
    """An engine was not built from the weights that its run holds now."""


def stale(engine: Path, wanted: Mapping[str, str]) -> str | None:
    """Why an engine has to be built, or None if the existing one has the same ingredients."""
    if not engine.is_file():
        return "it does not exist yet"
    try:
        made = require_intact(engine, EngineManifest)
        for path, digest in made.parent_files(engine).items():
            if not path.is_file() or digest_file(path) != digest:
                return f"{path.as_posix()}, which it was built from, is not what it was"
    except SesurgeryError as error:
        return error.diagnostics[0].message
    before = made.details.ingredients
    for what in dict.fromkeys((*wanted, *before)):
        if before.get(what) != wanted.get(what):
            return f"{what} changed"
    return None


def require_current(engine: Path, manifest: EngineManifest, run: Path, weights: str) -> None:
    """Raise StaleEngine (SE401) if an engine is not of the run's current weights, whose digest is given."""
    if not descends_from(engine, manifest, weights):
        text = f"{engine.as_posix()} was not built from the weights that {run.as_posix()} holds now"
        raise StaleEngine(Diagnostic("SE401", text, hint=build_commands(manifest, run)))


def build_commands(manifest: EngineManifest, run: Path) -> str:
    """The command that builds an engine from the run's current weights."""
    plain = "" if not manifest.details.plain else f"`sesurgery export {run.as_posix()} --plain`, then "
    command = manifest.command if plain else f"sesurgery build-engine {run.as_posix()}"
    return f"build it again: {plain}`{command}`"


def descends_from(engine: Path, manifest: EngineManifest, weights: str) -> bool:
    """Whether the chain of digests from an engine back to the weights holds: engine <- ONNX <- (ONNX <-) weights."""
    parents = manifest.parent_files(engine)
    seen: set[Path] = set()
    while parents:
        path, digest = parents.popitem()
        if digest == weights:
            return True
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        try:
            made = require_intact(path)
        except SesurgeryError:
            # The file is damaged, so its origin cannot be proved.
            continue
        # A run may have begun with the weights of another: those are not what it holds.
        if made.sha256 == digest and not isinstance(made, RunManifest):
            parents |= made.parent_files(path)
    return False
