"""Paths that come from a file or are a name: each stays inside its folder, or is refused.

A manifest, an ONNX file or an option may come from anybody. Whatever of them becomes a path goes through here, whether
it is read or written.
"""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath

from sesurgery.diagnostics import fail


def inside(folder: Path, given: str, what: str) -> Path:
    """`folder / given`; raises SE408 if that does not lie inside `folder`, whatever dots and links lead out of it.

    `what` names the thing that has this path, for the message: "the data of 'w'".
    """
    if (why := _obstacle(folder, given)) is not None:
        text = f"{what} would lie outside {folder.as_posix() or '.'}/: {given!r} {why}"
        raise fail(
            "SE408", text, "a path in a file, and a name, stay inside their folder: do not use this file as it is"
        )
    return folder / given


def plain_name(given: str, what: str) -> str:
    """`given` as the name of one file or folder; raises SE408 if it is a path, hidden, or no name at all."""
    if given in ("", ".", "..") or given != PureWindowsPath(given).name or given != Path(given).name:
        raise fail(
            "SE408", f"{what} is not a plain name: {given!r}", "letters, digits, '-', '_' and '.', and no folder"
        )
    if given.startswith(".") or not given.isprintable():
        raise fail("SE408", f"{what} begins with a dot or cannot be printed: {given!r}", "begin it with a letter")
    return given


def _obstacle(folder: Path, given: str) -> str | None:
    """Why a path does not stay in a folder, or None."""
    if given in ("", ".") or "\0" in given:
        return "names no file"
    if Path(given).is_absolute() or PureWindowsPath(given).drive:
        return "is absolute"
    try:
        root, place = folder.resolve(), (folder / given).resolve()
    except (OSError, RuntimeError) as error:  # links that go round in circles, and names that are too long
        return f"cannot be followed: {type(error).__name__}"
    if any(map(os.path.islink, (place, *place.parents))):
        # Python 3.13 leaves links that go round in circles as they are.
        return "cannot be followed: a link that leads to itself"
    return None if place != root and place.is_relative_to(root) else "leads out of it"
