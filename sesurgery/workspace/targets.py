"""What a command may write to: no file that its input needs, and no file not written by this program without --force.

Verbs with an output option call `claim` before they begin. Files in the workspace whose names they choose themselves
(runs/, export/, engines/) they may replace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from sesurgery.artifacts import digest_file
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.workspace.manifest_files import belonging, manifest_path, read_manifest

Ours = Callable[[Path], bool]
_MARKED = 1 << 20
"""Number of bytes searched for a mark."""


def claim(
    target: Path,
    *,
    needs: Iterable[Path] = (),
    beside: Iterable[Path] = (),
    ours: Ours | None = None,
    force: bool = False,
) -> None:
    """Raise SE405 if `target`, its manifest or a file `beside` it may not be written.

    `needs` are the files that the result is made from: they are refused whatever `force` says. What is there already
    has to be `ours` (by default: what its manifest describes, byte for byte), unless `force`.
    """
    if target.is_dir():
        # `.` and `..` have no name from which the manifest's could be made.
        raise fail("SE405", f"{target.as_posix()} is a folder", "name a file with -o")
    by_manifest = ours is None
    own = _own(target) if ours is None else frozenset({target} if target.is_file() and ours(target) else ())
    needed = tuple(needs)
    for path in (target, *beside, *((manifest_path(target),) if by_manifest else ())):
        for other in needed:
            if _same(path, other):
                text = f"{path.as_posix()} is an input of the file that would replace it"
                raise fail("SE405", text, "give the result another name with -o: the input is never replaced")
        if path.is_symlink() or path.exists():
            if not path.is_file():
                kind = "a folder" if path.is_dir() else "not a regular file"
                raise fail("SE405", f"{path.as_posix()} is {kind}", "name a file with -o")
            if path not in own and not force:
                text = f"{path.as_posix()} is already there, and was not written by this program"
                raise fail("SE405", text, "give the result another name with -o, or replace the file with --force")


def marked(mark: str) -> Ours:
    """Whether a text file carries our mark, for kinds of files without a manifest."""

    def ours(path: Path) -> bool:
        with path.open("rb") as stream:
            return mark.encode() in stream.read(_MARKED)

    return ours


def _own(target: Path) -> frozenset[Path]:
    """The unchanged files of the artefact at `target`; empty if one of them was changed."""
    if not target.is_file():
        return frozenset()
    try:
        manifest = read_manifest(target)
        files = belonging(target, manifest)
    except SesurgeryError:
        return frozenset()
    if any(not path.is_file() or digest_file(path) != digest for path, digest in files.items()):
        return frozenset()
    return frozenset({*files, manifest_path(target)})


def _same(path: Path, other: Path) -> bool:
    try:
        return path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other))
    except OSError:
        return False
