"""Errors as data: where, what was expected, what was found, what to do. Nothing here prints."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning"]

_WIDEST = 200
MOST_SHOWN = 50
"""Diagnostics of one error that are printed."""

CODES: dict[str, str] = {
    "SE001": "the file cannot be read",
    "SE002": "the file is not YAML",
    "SE003": "a key is given twice in one mapping",
    "SE004": "the file holds no mapping",
    "SE005": "a YAML tag that would build an object",
    "SE101": "unknown key",
    "SE102": "missing key",
    "SE103": "wrong type",
    "SE104": "value out of range",
    "SE105": "unknown name",
    "SE106": "unsupported version of the spec",
    "SE107": "options that exclude each other",
    "SE109": "an option that is not passed on",
    "SE201": "a rule matches nothing",
    "SE202": "another number of sites than expected",
    "SE203": "two rules insert on one value",
    "SE204": "a glob that matches no scope",
    "SE205": "a stage that the network does not have",
    "SE301": "the model is not known to its source",
    "SE302": "the model cannot be built",
    "SE303": "the factory cannot be imported",
    "SE304": "the model does not take this input",
    "SE305": "the block cannot be built for this site",
    "SE306": "the model has no such submodule",
    "SE401": "the artefact does not match its manifest",
    "SE402": "an input is missing",
    "SE403": "the plan does not fit the model",
    "SE404": "an inserted block has no effect",
    "SE405": "something already exists",
    "SE408": "a path leads out of its folder",
    "SE409": "code that you have not agreed to run",
    "SE501": "the data does not fit the model",
    "SE502": "training cannot continue",
    "SE503": "a data set is missing or damaged",
    "SE601": "the exported network differs from the model",
    "SE602": "the ONNX file is not valid",
    "SE603": "the backend cannot do this on this machine",
    "SE604": "the engine could not be built",
    "SE605": "the engine does not have the requested precision",
    "SE606": "the inputs do not fit the engine",
    "SE607": "a lowering pass broke its promise",
    "SE701": "the engine does not meet the required parity",
    "SE702": "a measurement breaks a stated limit",
    "SE801": "the operating system reports an error",
}
"""Every error code with its title; `docs/errors.md` explains each."""


@dataclass(frozen=True)
class Span:
    """A place in a text file. Lines and columns count from one; `text` is the whole source line."""

    file: str
    line: int
    column: int
    length: int = 1
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Diagnostic:
    """One mistake or warning: a code of `CODES`, what is wrong, where, and what to do about it.

    `site` is the key of the site concerned, set by code that knows the plan but not the spec's file.
    """

    code: str
    message: str
    span: Span | None = None
    hint: str | None = None
    severity: Severity = "error"
    site: str | None = None

    def render(self) -> str:
        """The diagnostic as text, the source line and a caret under it where the place is known."""
        head = f"{self.severity}[{self.code}]: {self.message}"
        lines = [f"{self.span}: {head}" if self.span else head]
        if self.span and self.span.text:
            source, column = _window(self.span)
            room = max(1, len(source) - column + 1)
            lines.append(f"{self.span.line:>5} | {source}")
            lines.append(f"{'':>5} | {' ' * (column - 1)}{'^' * min(self.span.length, room)}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return _harmless("\n".join(lines))


def _harmless(text: str) -> str:
    """The text without what a terminal would obey and what no encoding has: names in it may come from any file."""
    # Surrogates are halves of characters: a byte of a file name that is not UTF-8, or an escape in a file.
    obeyed = ("Cc", "Cf", "Cs")
    return "".join(
        repr(char)[1:-1] if unicodedata.category(char) in obeyed and char not in "\n\t" else char for char in text
    )


def _window(span: Span) -> tuple[str, int]:
    """The part of a source line that a reader is shown, and the column of the place in it, counted from one."""
    start = 0 if len(span.text) <= _WIDEST else max(0, span.column - 1 - _WIDEST // 4)
    shown = span.text[start : start + _WIDEST]
    # Tabs would shift the caret; a tab is one column in the YAML mark as well.
    return "".join(letter if letter.isprintable() else " " for letter in shown), span.column - start


def clipped(text: str, longest: int = 80) -> str:
    """A text that someone else chose, short enough for one line of a message."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"


class SesurgeryError(Exception):
    """A mistake in the user's input or a limit of the machine; ends a command with exit code 1."""

    exit_code = 1

    def __init__(self, diagnostics: Diagnostic | Sequence[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = (
            (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        )
        super().__init__(self.render())

    def render(self) -> str:
        left = len(self.diagnostics) - MOST_SHOWN
        shown = [diagnostic.render() for diagnostic in self.diagnostics[:MOST_SHOWN]]
        return "\n".join([*shown, *([f"and {left} more"] if left > 0 else [])])


class SpecError(SesurgeryError):
    """Every mistake that one stage found in a spec."""


class CheckFailed(SesurgeryError):  # noqa: N818  (a verdict, not a malfunction)
    """A check ran to its end and the answer is no; ends a command with exit code 4."""

    exit_code = 4


def located(error: SesurgeryError, spans: Mapping[str, Span | None]) -> SesurgeryError:
    """The same error with a place for every diagnostic that has none, by its code."""
    return type(error)([item if item.span else replace(item, span=spans.get(item.code)) for item in error.diagnostics])


def fail(code: str, message: str, hint: str | None = None, *, span: Span | None = None) -> SesurgeryError:
    """A `SesurgeryError` of one diagnostic, to be raised by the caller."""
    return SesurgeryError(Diagnostic(code, message, span, hint))


def first_line(error: BaseException) -> str:
    """What an error says first; the name of its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def described(error: BaseException) -> str:
    """The type of an error and what it says first: `ValueError: math domain error`."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"


def raised_at(error: BaseException) -> str:
    """Where an error was raised, as `net.py:12`: the innermost place in code that is neither ours nor installed."""
    import sysconfig
    import traceback

    paths = sysconfig.get_paths()
    others = {Path(__file__).parent, *(Path(paths[name]) for name in ("stdlib", "purelib", "platlib"))}
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not others & {*Path(frame.filename).parents} and frame.filename[:1] != "<"]
    if not frames:
        return "nowhere"
    last = (own or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not known: the nearest one, or all of them when none is near."""
    import difflib

    names = sorted(known)
    name = name[:_WIDEST]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(candidate) for candidate in near) + "?"
    if not names:
        return "there is none"
    shown = ", ".join(names[:40])
    return f"known: {shown}" + (f", and {len(names) - 40} more" if len(names) > 40 else "")
