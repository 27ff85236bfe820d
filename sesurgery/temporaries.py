"""Temporary files and folders that say whose they are, so that what a killed process left can be told and cleaned.

Their names hold the process that made them: a digest of its machine, its number, and the moment it started, which tells
it from a later process with the same number. No clock is asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MARK = re.compile(r"\..+\.(?P<machine>[0-9a-f]{6})-(?P<process>\d+)-(?P<started>\d+)\.[a-z0-9_]{8}\.tmp")


@contextlib.contextmanager
def file(target: Path) -> Iterator[Path]:
    """An empty file beside `target`, gone when the block ends unless it was given another name."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.{owner()}.", suffix=".tmp")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, gone when the block ends."""
    prefix = f".{target.name}.{owner()}."
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix, suffix=".tmp") as name:
        yield Path(name)


def folder_for(what: str) -> tempfile.TemporaryDirectory[str]:
    """A folder for engines that nobody keeps, where the system has its temporary files."""
    return tempfile.TemporaryDirectory(prefix=f"sesurgery-{what}-")


def sweep(*folders: Path) -> tuple[Path, ...]:
    """Remove from these folders what processes that are gone have left there, and return it.

    What belongs to a process that lives, or to another machine or container that shares the disk, stays.
    """
    gone = []
    for place in folders:
        # What cannot be looked at or removed is in nobody's way.
        with contextlib.suppress(OSError):
            gone += [path for path in place.iterdir() if _abandoned(path.name) and _removed(path)]
    return tuple(gone)


def _abandoned(name: str) -> bool:
    mark = _MARK.fullmatch(name)
    if mark is None or mark["machine"] != _machine():
        return False
    return started_at(int(mark["process"])) != int(mark["started"])


def _removed(path: Path) -> bool:
    try:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except OSError:
        return False
    return True


def owner() -> str:
    """The mark of this process in the names of what it leaves: its machine, its number and when it started."""
    process = os.getpid()
    return f"{_machine()}-{process}-{started_at(process)}"


def _machine() -> str:
    """Of a machine, and of a container in it: their processes have the same numbers and are not the same ones."""
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{os.uname().nodename} {space}".encode()).hexdigest()[:6]


def started_at(process: int) -> int:
    """When a process started, in the kernel's ticks; 0 for one that lives where that is not told, -1 for none."""
    try:
        status = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return -1 if Path("/proc/self").exists() else _lives(process)
    # A program's name stands in brackets and may hold anything.
    fields = status.rpartition(b")")[2].split()
    # A zombie writes no more.
    return -1 if fields[0] == b"Z" else int(fields[19])


def _lives(process: int) -> int:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return -1
    except PermissionError:
        pass
    return 0
