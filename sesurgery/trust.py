"""Whose code may run: what was made here is known by its seal; the rest runs code once a person has agreed.

A manifest is sealed with an HMAC under a key that is made at first use and that only this user can read. Nobody else
can write such a seal, and a seal holds for the very bytes that its manifest describes. So a run that was made here
needs no question, wherever its folder is moved, and a run made elsewhere cannot pass for one.

A person agrees for one command (`--trust`), or for a folder: a line in the file `trusted`.

    ~/.local/state/sesurgery/key       32 random bytes, for this user alone
    ~/.config/sesurgery/trusted        folders, one a line; `#` begins a comment
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from sesurgery.diagnostics import fail

_LENGTH = 32
_AGREED: ContextVar[bool] = ContextVar("agreed", default=False)


def key_file() -> Path:
    """Where the user's key lies, by the XDG base directories: artefacts are also made without the command line."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "sesurgery" / "key"


def trusted_file() -> Path:
    """Where the user lists folders whose code may run."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sesurgery" / "trusted"


def seal(text: str) -> str:
    """The seal of a text under the user's key, hexadecimal."""
    return hmac.new(_key(key_file()), text.encode(), "sha256").hexdigest()


def holds(text: str, given: str | None) -> bool:
    """Whether a seal was made of this very text by this user."""
    return given is not None and hmac.compare_digest(seal(text).encode(), given.encode())


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """A person has agreed that code of what is loaded in this block runs."""
    before = _AGREED.set(True)
    try:
        yield
    finally:
        _AGREED.reset(before)


def is_agreed(path: Path) -> bool:
    """Whether a person has agreed to code of what lies at `path`."""
    return _AGREED.get() or any(path.resolve().is_relative_to(folder) for folder in _trusted())


def require_agreed(path: Path, what: str) -> None:
    """Raise SE409 unless a person has agreed to code of what lies at `path`; `what` says which code that is."""
    if not is_agreed(path):
        text = f"{path.as_posix()} was not made here by you, and {what}: that is code, and it was not run"
        hint = f"look at it; if you trust who made it, add --trust, or its folder as a line of {trusted_file()}"
        raise fail("SE409", text, hint)


def _trusted() -> Iterator[Path]:
    try:
        lines = trusted_file().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        folder = line.partition("#")[0].strip()
        # A path that is relative would mean another folder wherever one works.
        if folder and (place := Path(folder).expanduser()).is_absolute():
            yield place.resolve()


def forget_key() -> None:
    """Read the key from its file again when it is next needed."""
    _key.cache_clear()


@functools.cache
def _key(path: Path) -> bytes:
    """The key in a file, made if there is none; for this process alone where none can be kept there."""
    damaged = False
    with contextlib.suppress(OSError):
        if len(found := path.read_bytes()) == _LENGTH:
            return found
        # Anybody could guess a key that was cut short.
        damaged = True
    fresh = secrets.token_bytes(_LENGTH)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if damaged:
            path.unlink(missing_ok=True)
        # mkstemp's files are for their owner alone.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".key.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(fresh)
            # Unlike a rename it fails where another process was first: both then use that one's key.
            os.link(name, path)
        finally:
            os.unlink(name)
    except OSError:
        with contextlib.suppress(OSError):
            if len(found := path.read_bytes()) == _LENGTH:
                return found
    return fresh
