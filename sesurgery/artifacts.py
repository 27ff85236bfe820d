"""What every written file has in common: a manifest beside it, a digest, an atomic rename, a lock."""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import filelock
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from sesurgery import temporaries, trust
from sesurgery.details import Details, Place, problem
from sesurgery.diagnostics import clipped, fail, first_line
from sesurgery.paths import inside

Kind = Literal["run", "onnx", "engine", "report"]
Detail = str | int | float | bool | None | tuple["Detail", ...] | Mapping[str, "Detail"]

BUSY = ".busy.lock"
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "numpy",
    "tensorrt",
    "tensorrt-rtx",
    "openvino",
)


MOST_BYTES = 64 * 1024 * 1024
"""Of a manifest, a measurement or another file of text beside an artefact."""


class Parent(BaseModel):
    """A file that an artefact was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    path: Place
    sha256: str


class Manifest(BaseModel):
    """Where an artefact came from: the command that makes it again, digests of it and its parents, versions, device.

    `beside` holds files that belong to the artefact and lie in its folder, by their paths there (weights kept outside).
    `details` holds what only this kind of artefact knows (an engine's precision and shapes, say), as plain JSON.
    `seal` proves that this user made it: see `sesurgery.trust`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    schema_version: Literal[1] = 1
    kind: Kind
    name: str
    file: Place
    sha256: str
    command: str
    created: str
    spec_digest: str | None = None
    plan_digest: str | None = None
    parents: tuple[Parent, ...] = ()
    beside: tuple[Parent, ...] = ()
    versions: dict[str, str]
    device: str
    details: dict[str, object] = {}
    seal: str | None = None

    @field_validator("details")
    @classmethod
    def _as_details(cls, value: dict[str, object], info: ValidationInfo) -> dict[str, object]:
        return Details(value, str(info.data.get("file")))

    @property
    def made_here(self) -> bool:
        """Whether this user made it, on this machine: nobody else could have sealed what it says."""
        return trust.holds(_sealed_text(self), self.seal)


def digest_text(text: str) -> str:
    """SHA-256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target` to write to; it takes the target's name only when the block ends well.

    Raises OSError where the target is no regular file: a device or a pipe would be replaced by a file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _require_regular(target)
    temporaries.sweep(target.parent)
    try:
        with temporaries.file(target) as temporary:
            yield temporary
            settle(temporary, target)
    except OSError as error:
        # The user knows the file by its own name, which a write that fails does not tell at all.
        hidden = error.filename is None or Path(os.fsdecode(error.filename)).name.startswith(f".{target.name}.")
        if error.errno is None or not hidden:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(target)) from error


def settle(written: Path, target: Path) -> None:
    """Give a file that is whole its name, once the disk has it: a full disk may tell only then."""
    # Temporary files are private; an artefact is as readable as any file the user writes.
    umask = os.umask(0)
    os.umask(umask)
    written.chmod(0o666 & ~umask)
    with written.open("rb") as stream:
        os.fsync(stream.fileno())
    written.replace(target)


def _require_regular(target: Path) -> None:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists() and not target.is_file():
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), str(target))


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically."""
    with writing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two processes do not write into it at once."""
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lock"):
        temporaries.sweep(folder)
        yield


@contextlib.contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder for long work that nobody waits for; raises SE405 where another process is `doing` it already."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / BUSY, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        text = f"another process is {doing} {folder.as_posix()}"
        raise fail("SE405", text, "wait until it has ended, or work in another folder") from None
    try:
        yield
    finally:
        lock.release()


def busy(folder: Path) -> bool:
    """Whether another process holds a folder by `alone`."""
    if not (folder / BUSY).is_file():
        return False
    lock = filelock.FileLock(folder / BUSY, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return True
    lock.release()
    return False


def manifest_path(artifact: Path) -> Path:
    """`x.onnx` -> `x.onnx.manifest.json`."""
    return artifact.with_name(artifact.name + ".manifest.json")


def describe(
    artifact: Path,
    kind: Kind,
    name: str,
    command: str,
    *,
    parents: tuple[Path, ...] = (),
    beside: tuple[Path, ...] = (),
    spec_digest: str | None = None,
    plan_digest: str | None = None,
    device: str | None = None,
    details: Mapping[str, object] | None = None,
    written: Path | None = None,
) -> Manifest:
    """Write the manifest of a finished artefact beside it and return it.

    With `written`, the artefact lies there still: its manifest waits, and `place` puts both in place.
    """
    manifest = Manifest(
        kind=kind,
        name=name,
        file=artifact.name,
        sha256=digest_file(written or artifact),
        command=command,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        spec_digest=spec_digest,
        plan_digest=plan_digest,
        parents=tuple(Parent(path=str(parent), sha256=digest_file(parent)) for parent in parents),
        beside=tuple(
            Parent(path=path.relative_to(artifact.parent).as_posix(), sha256=digest_file(path)) for path in beside
        ),
        versions=versions(),
        device=device or cpu_name(),
        details=dict(details or {}),
    )
    return _write_sealed(manifest_path(artifact) if written is None else _waiting(artifact), manifest)


def write_manifest(artifact: Path, manifest: Manifest) -> Manifest:
    """Seal a manifest, write it beside its artefact, and return it as it was written."""
    return _write_sealed(manifest_path(artifact), manifest)


def _write_sealed(path: Path, manifest: Manifest) -> Manifest:
    fresh = manifest.model_copy(update={"seal": None})
    sealed = fresh.model_copy(update={"seal": trust.seal(_sealed_text(fresh))}).model_dump_json(indent=2)
    write_text(path, sealed + "\n")
    return Manifest.model_validate_json(sealed)


def _sealed_text(manifest: Manifest) -> str:
    # Only keys that the file has: a later version may know more of them. Sorted and written once more, so that the text
    # is the same before it was written and after it was read.
    said = manifest.model_dump_json(exclude={"seal"}, exclude_unset=manifest.seal is not None)
    return json.dumps(json.loads(said), sort_keys=True)


def place(written: Path, artifact: Path) -> None:
    """Put an artefact in place whose manifest waits: at every moment, one of the two manifests is that of the bytes."""
    settle(written, artifact)
    # Somebody who read in between has done it already.
    with contextlib.suppress(FileNotFoundError):
        _waiting(artifact).replace(manifest_path(artifact))


def _waiting(artifact: Path) -> Path:
    return artifact.with_name(f".{artifact.name}.manifest.next")


def _finish(artifact: Path) -> None:
    """Put a manifest in place that waits for the bytes that are there: who placed them was ended in between."""
    waiting = _waiting(artifact)
    if not waiting.is_file():
        return
    # A manifest that waits for other bytes, or a folder that cannot be written to, changes nothing.
    with contextlib.suppress(OSError, ValueError):
        if Manifest.model_validate_json(waiting.read_bytes()).sha256 == digest_file(artifact):
            waiting.replace(manifest_path(artifact))


def read_manifest(artifact: Path) -> Manifest:
    """The manifest of an artefact; raises SE401 where it is missing or is not one."""
    _finish(artifact)
    path = manifest_path(artifact)
    try:
        manifest = Manifest.model_validate_json(read_small(path))
        if (why := problem(manifest.details)) is not None:
            raise ValueError(why)
        return manifest
    except FileNotFoundError:
        raise fail("SE401", f"{artifact} has no manifest ({path.name} is missing)", "make it again") from None
    except ValidationError as error:
        raise fail("SE401", f"{path} is not a manifest: {mistake(error)}", "make the artefact again") from error
    except (OSError, ValueError) as error:
        raise fail("SE401", f"{path} is not a manifest: {_first_line(error)}", "make the artefact again") from error


def read_small(path: Path) -> str:
    """The text of a file that commands write beside an artefact; ValueError where it is larger than any of those."""
    with path.open("rb") as stream:
        found = stream.read(MOST_BYTES + 1)
    if len(found) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB")
    return found.decode()


def mistake(error: ValidationError) -> str:
    """The first thing that is wrong with JSON: where in it, what was expected and what was found."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    found = "" if first["type"] in ("missing", "json_invalid") else f", found {clipped(repr(first['input']))}"
    return f"{clipped(where) + ': ' if where else ''}{clipped(first['msg'], 200)}{found}"


def is_engine(path: Path) -> bool:
    """Whether a file is an engine, by the manifest beside it."""
    return manifest_path(path).is_file() and read_manifest(path).kind == "engine"


def require_intact(artifact: Path) -> Manifest:
    """The manifest of an artefact whose bytes are the ones that were written; raises SE401 otherwise."""
    if not artifact.is_file():
        raise fail("SE402", f"{artifact} is not there", "make it first")
    manifest = read_manifest(artifact)
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


def belonging(artifact: Path, manifest: Manifest) -> dict[Path, str]:
    """The artefact's own file and those that belong to it, each with its digest; raises SE408 for one elsewhere."""
    what = f"a file that belongs to {artifact.as_posix()}"
    beside = {inside(artifact.parent, other.path, what): other.sha256 for other in manifest.beside}
    return {artifact: manifest.sha256, **beside}


def require_trusted(artifact: Path, manifest: Manifest, what: str) -> None:
    """Raise SE409 unless this user made the artefact, or agreed to the code that `what` names."""
    if not manifest.made_here:
        trust.require_agreed(artifact, what)


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that decide what an artefact looks like."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def cpu_name() -> str:
    """The processor as the system names it, with the number of cores this process may use."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def cpu_kind() -> str:
    """The processor by what decides which code runs on it: its name and its vector extensions."""
    flags: set[str] = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith(("flags", "features")):
                flags.update(line.partition(":")[2].split())
                break
    vectors = sorted(flag for flag in flags if flag.startswith(("avx", "amx", "asimd", "sve", "i8mm", "bf16")))
    return f"{cpu_name().rpartition(', ')[0]} ({' '.join(vectors) or platform.machine()})"


def to_json(value: object) -> str:
    """JSON as every artefact writes it: two spaces, keys in the order given."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    return first_line(error)
