"""Is an engine on disk the one that a build would give now?

An engine's manifest holds its *ingredients*: whatever decides its bytes, in words. Same ingredients, same engine; one
that differs is the reason to build again.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sesurgery.artifacts import Manifest, digest_file, digest_text, require_intact
from sesurgery.backends.base import Backend
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.serving.home import INGREDIENTS, here
from sesurgery.spec.model import Engine

FILE = "the ONNX file"
PASSES = "the lowering passes"
OPTIONS = "what was asked for"
CALIBRATION = "the calibration data"
PROGRAM = "the version of sesurgery"


def ingredients(
    onnx: Path, wanted: Engine, lowering: tuple[str, ...] | None = None, calibration: str | None = None
) -> dict[str, str]:
    """What decides the bytes of an engine of this file; `calibration` is a digest of the samples, for int8."""
    backend: Backend = wanted.backend.options
    found = {
        FILE: digest_onnx(onnx),
        PASSES: named(backend.passes if lowering is None else lowering),
        OPTIONS: asked_for(wanted),
        **here(wanted.backend.name, backend),
        PROGRAM: importlib.metadata.version("sesurgery"),
    }
    return found if calibration is None else {**found, CALIBRATION: calibration}


def named(passes: Sequence[str]) -> str:
    """Lowering passes, as ingredients name them."""
    return ", ".join(passes) or "none"


def asked_for(wanted: Engine) -> str:
    """All that was asked for but the name."""
    asked = wanted.model_dump(mode="json", by_alias=True)
    return json.dumps({key: asked[key] for key in sorted(asked) if key != "name"}, sort_keys=True)


def digest_onnx(path: Path) -> str:
    """SHA-256 of a file, or of it and of the files that hold its weights."""
    if not path.is_file():
        return ""
    from sesurgery.onnxgraph import io as onnx_io

    digests = [digest_file(path)]
    try:
        files = onnx_io.files(path)
    except SesurgeryError:  # no ONNX file: the build says so, and better
        return digests[0]
    for beside in files[1:]:
        if beside.is_file() and (found := digest_file(beside)) not in digests:
            digests.append(found)
    return digests[0] if len(digests) == 1 else digest_text(" ".join(digests))


def stale(engine: Path, wanted: Mapping[str, str]) -> str | None:
    """Why an engine has to be built, or None where the one that is there has the same ingredients."""
    if not engine.is_file():
        return "it is not there yet"
    try:
        made = require_intact(engine)
        for parent in made.parents:
            path = Path(parent.path)
            if not path.is_file() or digest_file(path) != parent.sha256:
                return f"{path.as_posix()}, which it was built from, is not what it was"
    except SesurgeryError as error:
        return error.diagnostics[0].message
    before = made.details.get(INGREDIENTS)
    if not isinstance(before, Mapping):
        return "its manifest does not say what it was made of"
    for what in dict.fromkeys((*wanted, *before)):
        if before.get(what) != wanted.get(what):
            return f"{what} changed"
    return None


def require_current(engine: Path, manifest: Manifest, run: Path, weights: str) -> None:
    """Raise SE401 where an engine of a run was not built from the weights with this digest: the run's own of now."""
    if not descends_from(manifest, weights):
        text = f"{engine.as_posix()} was not built from the weights that {run.as_posix()} holds now"
        raise fail("SE401", text, again(manifest, run))


def again(manifest: Manifest, run: Path) -> str:
    """How an engine is built from a run's weights of now."""
    plain = "" if not manifest.details.get("plain") else f"`sesurgery export {run.as_posix()} --plain`, then "
    command = manifest.command if plain else f"sesurgery build-engine {run.as_posix()}"
    return f"build it again: {plain}`{command}`"


def descends_from(manifest: Manifest, weights: str) -> bool:
    """Whether the chain of digests from an engine back to the weights holds: engine <- ONNX <- (ONNX <-) weights."""
    parents = {parent.path: parent.sha256 for parent in manifest.parents}
    seen: set[str] = set()
    while parents:
        path, digest = parents.popitem()
        if digest == weights:
            return True
        if path in seen or not Path(path).is_file():
            continue
        seen.add(path)
        try:
            made = require_intact(Path(path))
        except SesurgeryError:
            # Damaged since: whatever it was, nothing can be said of where it came from.
            continue
        if made.sha256 == digest:
            parents |= {parent.path: parent.sha256 for parent in made.parents}
    return False
