"""Manifests on disk: sealed and written beside the artefact, read by kind, and compared with the artefact's bytes."""

from __future__ import annotations

import contextlib
import datetime
import os
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Generic, TypeVar, overload

from pydantic import ValidationError

from sesurgery import trust
from sesurgery.artifacts import cpu_name, digest_file, mistake, move_into_place, read_small, versions, write_text
from sesurgery.diagnostics import fail, first_line
from sesurgery.paths import inside
from sesurgery.workspace.details import Details, Parent
from sesurgery.workspace.manifests import (
    ADAPTER,
    VERSION,
    BaseManifest,
    EngineManifest,
    Manifest,
    OnnxManifest,
    relative,
)

M = TypeVar("M", bound=BaseManifest)
NAMES = {
    "run": "a run's weights",
    "onnx": "an ONNX file",
    "engine": "an engine",
    "package": "a packaged engine",
    "study": "a study's answer",
}
"""The kinds, as errors name them."""


def manifest_path(artifact: Path) -> Path:
    """`x.onnx` -> `x.onnx.manifest.json`."""
    return artifact.with_name(artifact.name + ".manifest.json")


@dataclass(frozen=True)
class Provenance(Generic[M]):
    """Where an artefact came from: the kind of its manifest, the command that makes it, and the files it was made from.

    `known` are parents whose digests are known, and need not be there any more. `beside` are files that belong to the
    artefact. `device` is by default this machine's processor.
    """

    kind: type[M]
    name: str
    command: str
    _: KW_ONLY
    details: Details
    parents: tuple[Path, ...] = ()
    known: tuple[Parent, ...] = ()
    beside: tuple[Path, ...] = ()
    spec_digest: str | None = None
    plan_digest: str | None = None
    device: str | None = None


def describe(artifact: Path, provenance: Provenance[M], *, written: Path | None = None) -> M:
    """Write the manifest of a finished artefact beside it and return it.

    With `written`, the artefact is still at that temporary path: the manifest waits there too, until `place` moves
    both.
    """
    kind, folder = provenance.kind, artifact.parent
    # Every field is set explicitly, as unset fields are not written.
    manifest = kind(
        schema_version=VERSION,
        kind=kind.model_fields["kind"].default,
        name=provenance.name,
        file=artifact.name,
        sha256=digest_file(written or artifact),
        command=provenance.command,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        spec_digest=provenance.spec_digest,
        plan_digest=provenance.plan_digest,
        parents=(
            *(Parent(path=relative(path, artifact), sha256=digest_file(path)) for path in provenance.parents),
            *provenance.known,
        ),
        beside=tuple(
            Parent(path=path.relative_to(folder).as_posix(), sha256=digest_file(path)) for path in provenance.beside
        ),
        versions=versions(),
        device=provenance.device or cpu_name(),
        details=provenance.details,
    )
    return _write_sealed(manifest_path(artifact) if written is None else _waiting(artifact), manifest)


def write_manifest(artifact: Path, manifest: M) -> M:
    """Seal a manifest, write it beside its artefact, and return it as it was written."""
    return _write_sealed(manifest_path(artifact), manifest)


def _write_sealed(path: Path, manifest: M) -> M:
    sealed = manifest.model_copy(update={"seal": trust.seal(manifest.sealed_text())})
    text = sealed.model_dump_json(indent=2, exclude_unset=True)
    write_text(path, text + "\n")
    return type(manifest).model_validate_json(text)


def place(written: Path, artifact: Path) -> None:
    """Move an artefact and its waiting manifest into place.

    At every moment, one of the two manifests matches the bytes.
    """
    move_into_place(written, artifact)
    # A reader in between may have moved it already.
    with contextlib.suppress(FileNotFoundError):
        _waiting(artifact).replace(manifest_path(artifact))


def _waiting(artifact: Path) -> Path:
    return artifact.with_name(f".{artifact.name}.manifest.next")


def _finish(artifact: Path) -> None:
    """Move a waiting manifest into place if it matches the bytes: the process that placed those was killed midway."""
    waiting = _waiting(artifact)
    if not waiting.is_file():
        return
    # Nothing happens where it waits for other bytes, or where the folder is read-only.
    with contextlib.suppress(OSError, ValueError):
        if ADAPTER.validate_json(waiting.read_bytes()).sha256 == digest_file(artifact):
            waiting.replace(manifest_path(artifact))


@overload
def read_manifest(artifact: Path) -> Manifest: ...
@overload
def read_manifest(artifact: Path, kind: type[M]) -> M: ...
def read_manifest(artifact: Path, kind: type[BaseManifest] | None = None) -> BaseManifest:
    """The manifest of an artefact; raises SE401 if it is missing, is not one, or is that of another kind."""
    _finish(artifact)
    path = manifest_path(artifact)
    try:
        manifest = ADAPTER.validate_json(read_small(path))
    except FileNotFoundError:
        raise fail("SE401", f"{artifact} has no manifest ({path.name} is missing)", "make it again") from None
    except ValidationError as error:
        raise fail("SE401", f"{path} is not a manifest: {mistake(error)}", "make the artefact again") from error
    except (OSError, ValueError) as error:
        raise fail("SE401", f"{path} is not a manifest: {first_line(error)}", "make the artefact again") from error
    if kind is not None and not isinstance(manifest, kind):
        asked, found = NAMES[kind.model_fields["kind"].default], NAMES.get(manifest.kind, f"a {manifest.kind}")
        raise fail("SE401", f"{artifact} is not {asked}: its manifest is that of {found}", "name another file")
    return manifest


def is_engine(path: Path) -> bool:
    """Whether a file is an engine, by the manifest beside it."""
    return manifest_path(path).is_file() and isinstance(read_manifest(path), EngineManifest)


@overload
def require_intact(artifact: Path) -> Manifest: ...
@overload
def require_intact(artifact: Path, kind: type[M]) -> M: ...
def require_intact(artifact: Path, kind: type[BaseManifest] | None = None) -> BaseManifest:
    """The manifest of an artefact whose bytes are unchanged; raises SE401 otherwise."""
    if not artifact.is_file():
        raise fail("SE402", f"{artifact} is not there", "make it first")
    manifest = read_manifest(artifact) if kind is None else read_manifest(artifact, kind)
    for path, digest in belonging(artifact, manifest).items():
        if not path.is_file():
            raise fail("SE401", f"{path} belongs to {artifact} and is missing", "both files go together")
        if (found := digest_file(path)) != digest:
            raise fail(
                "SE401",
                f"{path} is not the file its manifest describes: expected sha256 {digest[:12]}…, found {found[:12]}…",
                f"make it again with: {manifest.command}",
            )
    return manifest


def belonging(artifact: Path, manifest: BaseManifest) -> dict[Path, str]:
    """The artefact's own file and those that belong to it, each with its digest; raises SE408 for one elsewhere."""
    what = f"a file that belongs to {artifact.as_posix()}"
    beside = {inside(artifact.parent, other.path, what): other.sha256 for other in manifest.beside}
    return {artifact: manifest.sha256, **beside}


def require_trusted(artifact: Path, manifest: BaseManifest, what: str) -> None:
    """Raise SE409 unless this user made the artefact, or agreed to the code that `what` names."""
    if not manifest.made_here:
        trust.require_agreed(artifact, what)


def run_folder(artifact: Path, manifest: OnnxManifest | EngineManifest) -> Path | None:
    """The folder of the run that an artefact came from, as its manifest says, or None if it came from none.

    Results are written there, so an artefact that was not made here and is not trusted may only name a folder below the
    current one. Raises SE408 otherwise.
    """
    folder = manifest.run_named(artifact)
    if folder is not None and not manifest.made_here and not trust.is_agreed(artifact):
        inside(Path(), os.path.relpath(folder), f"the run of {artifact.as_posix()}")
    return folder
