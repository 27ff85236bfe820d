"""An engine file as a participant of a race."""

from __future__ import annotations

from pathlib import Path

from sesurgery.verification.fresh_process import EngineFile
from sesurgery.workspace import EngineManifest


def engine_file(name: str, path: Path, manifest: EngineManifest, threads: int) -> EngineFile:
    """An engine under a name for the report."""
    return EngineFile(name, path.as_posix(), manifest.details.engine.backend.model_dump(mode="json"), threads)
