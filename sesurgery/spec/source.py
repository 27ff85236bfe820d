"""Read YAML as data and keep the place of every value in the file, so that later errors can point at it.

Scalars follow YAML 1.2's core schema (`1e-3` is a number, `no` is a word). Tags cannot build objects. Size, depth, the
number of values and the width of numbers are bounded, so that reading any file takes seconds at most.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from sesurgery.diagnostics import Diagnostic, Span, SpecError, clipped
from sesurgery.spec.composing import MOST_LEVELS, MOST_VALUES, Bounded

Data: TypeAlias = "bool | int | float | str | list[Data] | dict[str, Data] | None"
Place = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
MOST_BYTES = 256 * 1024
"""Of a spec file."""
_LARGEST = 2**63 - 1
_LONGEST = 100
_WRITABLE = "\t\n\r"


class SpecText:
    """A spec file's data and, for every place in it, the span of its key and of its value."""

    def __init__(self, file: str, text: str) -> None:
        """Raises SpecError with every mistake found while reading."""
        self.file = file
        self.text = text
        self.lines = text.splitlines()
        self.keys: dict[Place, Span] = {}
        self.values: dict[Place, Span] = {}
        self._mistakes: list[Diagnostic] = []
        self._open: set[int] = set()
        self._count = 0
        self.data = self._read(text)
        if self._mistakes:
            raise SpecError(self._mistakes)

    def span(self, place: Place, *, key: bool = False) -> Span:
        """The span of the value (or its key) at `place`, or of the nearest place above it that the file has."""
        if place and isinstance(place[-1], int) and place not in self.values:
            # A single value instead of a list is item 0 of that list.
            place = place[:-1]
        for depth in range(len(place), 0, -1):
            here = place[:depth]
            # A place that is not in the file is shown at the key above it, not as a whole block of lines.
            table = self.values if depth == len(place) and not key else self.keys
            found = table.get(here) or self.keys.get(here) or self.values.get(here)
            if found:
                return found
        return self._at(1, 1, len(self.lines[0]) if self.lines else 1)

    def _read(self, text: str) -> dict[str, Data]:
        try:
            loader = Bounded(text)
        except yaml.reader.ReaderError as error:
            raise SpecError(self._unreadable(error)) from None
        try:
            node = loader.get_single_node()
        except yaml.reader.ReaderError as error:
            raise SpecError(self._unreadable(error)) from None
        except yaml.MarkedYAMLError as error:
            raise SpecError(self._syntax(error)) from None
        except (ValueError, OverflowError):
            # PyYAML hands the digits of an escape to chr() as they are.
            mark = loader.get_mark()
            text = "not YAML: an escape names a character that does not exist"
            raise SpecError(Diagnostic("SE002", text, self._at(mark.line + 1, mark.column + 1, 1))) from None
        if not isinstance(node, yaml.MappingNode):
            found = "nothing" if node is None else "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
            raise SpecError(
                Diagnostic(
                    "SE004",
                    f"a spec is a mapping of keys to values, found {found}",
                    self._at(1, 1, len(self.lines[0]) if self.lines else 1),
                    "begin with 'version: 1'; `sesurgery schema` describes every key",
                )
            )
        data = self._value(node, ())
        return data if isinstance(data, dict) else {}

    def _unreadable(self, error: yaml.reader.ReaderError) -> Diagnostic:
        before = self.text[: error.position] if isinstance(error.position, int) else ""
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        found = f"U+{error.character:04X}" if isinstance(error.character, int) else repr(error.character)
        return Diagnostic("SE002", f"not YAML: {error.reason}: {found}", self._at(line, column, 1), "take it out")

    def _syntax(self, error: yaml.MarkedYAMLError) -> Diagnostic:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = " ".join(part for part in (error.context, error.problem) if part)
        hint = None
        if "\\t" in problem or (line <= len(self.lines) and "\t" in self.lines[line - 1]):
            hint = "YAML is indented with spaces: replace the tab"
        elif "nested" in problem:
            hint = f"a spec is nested {MOST_LEVELS} levels deep at most"
        elif "mapping values are not allowed" in problem:
            hint = "a ':' stands where none can: check the indentation, or quote the value"
        return Diagnostic("SE002", f"not YAML: {problem}", self._at(line, column, 1), hint or "check the syntax here")

    def _value(self, node: yaml.Node, place: Place) -> Data:
        self._count += 1
        if id(node) in self._open or self._count > MOST_VALUES:
            why = f"it has more than {MOST_VALUES} values, with every alias written out"
            why = "an alias contains itself" if id(node) in self._open else why
            raise SpecError(
                Diagnostic(
                    "SE002", f"not YAML that a spec can hold: {why}", self._span_of(node), "write the values out"
                )
            )
        self.values.setdefault(place, self._span_of(node))
        default = {"MappingNode": "map", "SequenceNode": "seq"}.get(type(node).__name__, "str")
        if node.tag != _TAG + default:
            self._mistakes.append(
                Diagnostic(
                    "SE005",
                    f"the tag {node.tag.replace(_TAG, '!!')!r} is not allowed: a spec is plain data",
                    self._span_of(node),
                    "remove the tag and write the value itself",
                )
            )
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, place)
            if isinstance(node, yaml.SequenceNode):
                return [self._value(item, (*place, index)) for index, item in enumerate(node.value)]
            value = _scalar(node)
            if (wrong := _unfit(value)) is not None:
                self._mistakes.append(Diagnostic("SE104", wrong, self._span_of(node), "choose a value in that range"))
                return None
            return value
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Data]:
        merged: dict[str, Data] = {}
        own: dict[str, Data] = {}
        for key_node, value_node in node.value:
            span = self._span_of(key_node)
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            if (wrong := _unfit(key)) is not None:
                self._mistakes.append(Diagnostic("SE104", wrong, span, "write a key that is known"))
                continue
            if key == "<<" and (*place, key) not in self.keys:
                self.keys[(*place, key)] = span
                merged = self._merged(value_node, place)
                continue
            if (*place, key) in self.keys and (key in own or key == "<<"):
                first = self.keys[(*place, key)]
                self._mistakes.append(
                    Diagnostic(
                        "SE003", f"the key {key!r} stands here and on line {first.line}", span, "keep one of the two"
                    )
                )
                continue
            self.keys[(*place, key)] = span
            self.values.pop((*place, key), None)
            own[key] = self._value(value_node, (*place, key))
        return {**merged, **own}

    def _merged(self, node: yaml.Node, place: Place) -> dict[str, Data]:
        """What `<<:` merges: one mapping, or several; for each key the first mapping that has it counts."""
        merged: dict[str, Data] = {}
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(item, yaml.MappingNode):
                found = "a list" if isinstance(item, yaml.SequenceNode) else clipped(repr(item.value))
                text = f"'<<' takes over the keys of a mapping, or of a list of mappings, found {found}"
                hint = "name an alias of a mapping: '<<: *name'"
                self._mistakes.append(Diagnostic("SE103", text, self._span_of(item), hint))
                continue
            value = self._value(item, place)
            merged = {**(value if isinstance(value, dict) else {}), **merged}
        return merged

    def _span_of(self, node: yaml.Node) -> Span:
        start, end = node.start_mark, node.end_mark
        line, column = start.line + 1, start.column + 1
        text = self.lines[start.line] if start.line < len(self.lines) else ""
        stop = end.column if end.line == start.line else len(text.rstrip())
        return self._at(line, column, max(1, stop - start.column))

    def _at(self, line: int, column: int, length: int) -> Span:
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return Span(self.file, line, column, length, text)


def _scalar(node: yaml.Node) -> Data:
    text = str(node.value)
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        # Python refuses to read more than 4300 decimal digits; what is longer than these is out of range in any base.
        short = text if len(text) <= _LONGEST else text[:_LONGEST]
        return int(short, 0) if short[:2] in ("0x", "0o") else int(short)
    if _FLOAT.fullmatch(text):
        return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    return text


def _unfit(value: Data) -> str | None:
    """Why a scalar is not allowed in a spec, or None: numbers must fit in 64 bits, text must be printable."""
    if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
        return f"must be a number of at most 64 bits, found {str(value)[:20]}…"
    if isinstance(value, str):
        for letter in value:
            # Control characters, among them what a path cannot hold and a terminal obeys; and halves of characters.
            if unicodedata.category(letter) in ("Cc", "Cs") and letter not in _WRITABLE:
                return f"must be text that can be printed, found the character U+{ord(letter):04X}"
    return None


class _Writer(yaml.SafeDumper):
    """Block style, with quotes around what would be read as another type, and every value written out."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(writer: _Writer, text: str) -> yaml.ScalarNode:
    plain = _scalar(yaml.ScalarNode(_TAG + "str", text))
    return writer.represent_scalar(_TAG + "str", text, style=None if isinstance(plain, str) else "'")


_Writer.add_representer(str, _text)


def write(data: Mapping[str, Any]) -> str:
    """Data as YAML from which `SpecText` reads the same data."""
    return yaml.dump(json.loads(json.dumps(data)), Dumper=_Writer, sort_keys=False, allow_unicode=True, width=120)


def read_source(path: Path) -> SpecText:
    """Read a spec file; raises SpecError if it cannot be read or is not YAML that a spec can hold."""
    if path.exists() and not path.is_file() and not path.is_dir():
        # Reading a pipe or a device may never end.
        text = "cannot be read: it is a pipe or a device"
        raise SpecError(Diagnostic("SE001", text, Span(str(path), 1, 1), "give the path of a file"))
    try:
        found = _bytes(path)
    except (OSError, ValueError) as error:
        hint = "give the path of a spec" if path.is_dir() else "check the path"
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise SpecError(Diagnostic("SE001", f"cannot be read: {why}", Span(str(path), 1, 1), hint)) from None
    if len(found) > MOST_BYTES:
        text = f"larger than {MOST_BYTES // 1024} KiB, which no spec is"
        raise SpecError(Diagnostic("SE001", text, Span(str(path), 1, 1), "give the path of a spec"))
    try:
        # As text files are read: any of the three line ends is one.
        text = found.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        span = Span(str(path), 1, 1)
        hint = "save the file as UTF-8"
        raise SpecError(
            Diagnostic("SE001", f"not UTF-8 text: byte {error.start} is {error.object[error.start]:#x}", span, hint)
        ) from None
    return SpecText(str(path), text)


def _bytes(path: Path) -> bytes:
    """A file's first bytes, one more than a spec may have; does not block on a pipe."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    os.set_blocking(handle, True)
    with open(handle, "rb") as stream:
        return stream.read(MOST_BYTES + 1)
