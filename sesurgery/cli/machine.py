"""Errors of the machine (a full disk, a read-only folder) as diagnostics, as they are not defects of the program."""

from __future__ import annotations

import errno
import os
import re
import sys

from sesurgery.diagnostics import Diagnostic

_SPACE = "free some space or write to another disk; what was there before is unchanged"
_RIGHTS = "check who may write there, or work in another folder"
_NAME = "name a file, not a folder"
_WAYS = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EISDIR: _NAME,
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "a file is in the way: move it, or work in another folder",
    errno.ENOTEMPTY: "a folder is in the way: move it, or work in another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "a link leads back to itself",
    errno.EIO: "the disk, or whatever is read or written, has failed",
    errno.ENXIO: "name a regular file",
    errno.ENODEV: "name a regular file",
    errno.ESTALE: "the network disk has changed: mount it again",
    errno.ETXTBSY: "end the program that runs this file",
    errno.EBUSY: "end the program that uses this file",
    errno.EMFILE: "raise the limit: `ulimit -n`",
    errno.ENFILE: "close other programs",
    errno.EAGAIN: "close other programs, or raise the limit: `ulimit -u`",
    errno.ENOMEM: "close other programs, or take a smaller batch",
}
_PRINTERS = ("click", "rich")
_OF_RUST = re.compile(r"\(os error (\d+)\)")


def refused(error: BaseException) -> Diagnostic | None:
    """The diagnostic of an error that the machine caused, or None if it did not."""
    if isinstance(error, MemoryError):
        return Diagnostic("SE801", "there is not enough memory", hint=_WAYS[errno.ENOMEM])
    number, file = _cause(error)
    if number not in _WAYS:
        return None
    where = f"{file}: " if file else "standard output: " if of_output(error) else ""
    return Diagnostic("SE801", f"{where}{_lower(os.strerror(number))}", hint=_WAYS[number])


def of_output(error: BaseException) -> bool:
    """Whether an error came from writing to stdout or stderr, which has no file's name to tell it by."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and str(place.tb_frame.f_globals.get("__name__")).partition(".")[0] in _PRINTERS


def abandon() -> None:
    """Redirect stdout and stderr to /dev/null if they cannot be written: Python flushes them at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        except ValueError:
            continue


def _cause(error: BaseException) -> tuple[int | None, str | None]:
    """The system's number of an error, and the file it is about; libraries in Rust only tell it in their text."""
    if isinstance(error, OSError):
        name = error.filename2 or error.filename
        return error.errno, None if name is None or isinstance(name, int) else os.fsdecode(name)
    found = _OF_RUST.search(str(error))
    return (int(found[1]) if found else None), None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
