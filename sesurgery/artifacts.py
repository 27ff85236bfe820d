"""What every written file has in common: a digest, an atomic rename, a lock; and the machine that it was made on."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import filelock
from pydantic import ValidationError

from sesurgery import temporaries
from sesurgery.diagnostics import clipped, fail

BUSY = ".busy.lock"
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "numpy",
    "tensorrt",
    "tensorrt-rtx",
    "openvino",
)


MOST_BYTES = 64 * 1024 * 1024
"""The largest manifest, measurement or other text file beside an artefact that is read."""


def digest_text(text: str) -> str:
    """SHA-256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; it is renamed to `target` only if the block ends without an error.

    Raises OSError where the target is not a regular file: a device or a pipe would be replaced by a file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _require_regular(target)
    temporaries.sweep(target.parent)
    try:
        with temporaries.file(target) as temporary:
            yield temporary
            move_into_place(temporary, target)
    except OSError as error:
        # The user knows the target's name, not the temporary one; a failed write may name no file at all.
        hidden = error.filename is None or Path(os.fsdecode(error.filename)).name.startswith(f".{target.name}.")
        if error.errno is None or not hidden:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(target)) from error


def move_into_place(written: Path, target: Path) -> None:
    """Rename a finished file to its target, after fsync: a full disk may be reported only then."""
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
    """Hold the folder's lock, waiting for it: two processes never write into the folder at once."""
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lock"):
        temporaries.sweep(folder)
        yield


@contextlib.contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Lock a folder for a long job; raises SE405 at once if another process holds it. `doing` names the job."""
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
    """Whether another process has locked a folder with `alone`."""
    if not (folder / BUSY).is_file():
        return False
    lock = filelock.FileLock(folder / BUSY, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return True
    lock.release()
    return False


def read_small(path: Path) -> str:
    """The text of a file that commands write beside an artefact; ValueError if it is larger than any of those."""
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


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that decide what an artefact looks like."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def cpu_name() -> str:
    """The processor's name, with the number of cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_cpu_model()}, {cores} cores"


def cpu_kind() -> str:
    """The processor's name and its vector extensions, which decide what machine code it can run."""
    flags = (_cpu_field("flags") or _cpu_field("Features") or "").split()
    vectors = sorted({flag for flag in flags if flag.startswith(("avx", "amx", "asimd", "sve", "i8mm", "bf16"))})
    return f"{_cpu_model()} ({' '.join(vectors) or platform.machine()})"


def _cpu_model() -> str:
    return _cpu_field("model name") or platform.processor() or platform.machine()


def _cpu_field(name: str) -> str | None:
    """The first field of that name in Linux's /proc/cpuinfo."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return None


def to_json(value: object) -> str:
    """JSON as every artefact writes it: two spaces, keys in the order given."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
