"""What is good: a diagnostic with its place and exit code 1 (or 4), or a result that stands up. All else is bad."""

import contextlib
import hashlib
import io
import json
import traceback
from dataclasses import dataclass
from pathlib import Path

import click
import onnx

from sesurgery.cli import program
from sesurgery.diagnostics import CODES, SesurgeryError
from sesurgery.workspace import require_intact

DEFECTS = ("SE607",)
"""Codes that say of themselves that the program is at fault."""


class BadError(Exception):
    """Something that must not happen, in words."""


@dataclass(frozen=True)
class Outcome:
    """`kind` is "done" or "refused"; `text` is what was printed or the diagnostics."""

    kind: str
    text: str = ""


def called(function, *arguments, placed: bool = False, **options) -> Outcome:
    """Call a function: what it says is judged. With `placed` every diagnostic must have a line and a column."""
    try:
        return Outcome("done", str(function(*arguments, **options))[:200])
    except SesurgeryError as error:
        return refused(error, placed=placed)


def refused(error: SesurgeryError, *, placed: bool = False) -> Outcome:
    """An error judged: codes that exist, that do not blame the program, text that can be printed, a place."""
    text = error.render()
    text.encode()
    if len(text) > 200_000:
        raise BadError(f"a diagnostic of {len(text)} characters")
    for item in error.diagnostics:
        if item.code not in CODES or item.code in DEFECTS:
            raise BadError(f"{item.code}: {item.message}")
        if not item.message.strip():
            raise BadError(f"{item.code} says nothing")
        if placed and (item.span is None or item.span.line < 1 or item.span.column < 1):
            raise BadError(f"{item.code} has no place: {item.message}")
    if error.exit_code not in (1, 4):
        raise BadError(f"exit code {error.exit_code}")
    return Outcome("refused", text)


def cli(*arguments: str, placed: bool = False) -> Outcome:
    """Call a verb in this process, as the command line does."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            program.main([*map(str, arguments)], prog_name="sesurgery", standalone_mode=False)
    except SesurgeryError as error:
        return refused(error, placed=placed)
    except click.exceptions.Exit as stop:
        if stop.exit_code not in (0, 1, 4):
            raise BadError(f"exit code {stop.exit_code}") from stop
        return Outcome("refused" if stop.exit_code else "done", said.getvalue())
    except click.ClickException as error:
        return Outcome("refused", error.format_message())
    return Outcome("done", said.getvalue())


LOCKS, MANIFEST = ".lock", ".manifest.json"


def state(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder, but for locks."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != LOCKS
    }


def require_whole(folder: Path, before: dict[str, str] | None = None) -> None:
    """Raise BadError for a file, written since `before`, that is worse than none.

    That is: a temporary file that was left, one that is cut off, and an artefact that its manifest does not describe.
    """
    now, before = state(folder), before or {}
    for name in sorted(now):
        if now[name] == before.get(name):
            continue
        path = folder / name
        if path.suffix == ".tmp":
            raise BadError(f"a temporary file was left: {name}")
        try:
            artefact = path.with_name(path.name.removesuffix(MANIFEST))
            if artefact.with_name(artefact.name + MANIFEST).exists():
                require_intact(artefact)
            if path.suffix == ".json":
                json.loads(path.read_text())
            if path.suffix == ".html" and not path.read_text().rstrip().endswith("</html>"):
                raise ValueError("it has no end")
            if path.suffix == ".onnx":
                onnx.load(path, load_external_data=False)
        except Exception as error:
            raise BadError(f"{name} was written and is worse than none: {str(error)[:200]}") from error


def last_lines(error: BaseException) -> str:
    """Where it happened, in the package first, and what."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if "/sesurgery/" in frame.filename]
    at = f"{own[-1].filename.rpartition('/sesurgery/')[2]}:{own[-1].lineno}" if own else "?"
    return f"{type(error).__name__}: {str(error).strip()[:300]} (at {at})"
