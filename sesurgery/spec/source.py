"""YAML read as data with every value's place in the file kept, so that any later error can point at it.

Scalars follow YAML 1.2's core schema (`1e-3` is a number, `no` is a word). Nothing in a file can build an object.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeAlias

import yaml

from sesurgery.diagnostics import Diagnostic, Span, SpecError

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
_MOST_VALUES = 100_000


class Source:
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
            # One value written where a list may stand is item 0 of that list.
            place = place[:-1]
        for depth in range(len(place), 0, -1):
            here = place[:depth]
            # A place that is not in the file is shown by the key above it, not by a whole block of lines.
            table = self.values if depth == len(place) and not key else self.keys
            found = table.get(here) or self.keys.get(here) or self.values.get(here)
            if found:
                return found
        return self._at(1, 1, len(self.lines[0]) if self.lines else 1)

    def _read(self, text: str) -> dict[str, Data]:
        try:
            node = yaml.compose(text, Loader=yaml.BaseLoader)
        except yaml.reader.ReaderError as error:
            raise SpecError(Diagnostic("SE002", f"not YAML: {error.reason}", self._at(1, 1, 1))) from None
        except yaml.MarkedYAMLError as error:
            raise SpecError(self._syntax(error)) from None
        except RecursionError:
            raise SpecError(Diagnostic("SE002", "not YAML: nested too deeply", self._at(1, 1, 1))) from None
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

    def _syntax(self, error: yaml.MarkedYAMLError) -> Diagnostic:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = " ".join(part for part in (error.context, error.problem) if part)
        hint = None
        if "\\t" in problem or (line <= len(self.lines) and "\t" in self.lines[line - 1]):
            hint = "YAML is indented with spaces: replace the tab"
        elif "mapping values are not allowed" in problem:
            hint = "a ':' stands where none can: check the indentation, or quote the value"
        return Diagnostic("SE002", f"not YAML: {problem}", self._at(line, column, 1), hint or "check the syntax here")

    def _value(self, node: yaml.Node, place: Place) -> Data:
        self._count += 1
        if id(node) in self._open or self._count > _MOST_VALUES:
            why = "an alias contains itself" if id(node) in self._open else "aliases expand to too many values"
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
            return _scalar(node)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Data]:
        merged: dict[str, Data] = {}
        own: dict[str, Data] = {}
        for key_node, value_node in node.value:
            span = self._span_of(key_node)
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            if key == "<<":
                value = self._value(value_node, place)
                merged.update(value if isinstance(value, dict) else {})
                continue
            if key in own:
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
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text):
        return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    return text


def read_source(path: Path) -> Source:
    """Read a spec file; raises SpecError where it cannot be read or is not YAML that a spec can hold."""
    if path.exists() and not path.is_file() and not path.is_dir():
        # Reading a pipe or a device may never end.
        text = "cannot be read: it is a pipe or a device"
        raise SpecError(Diagnostic("SE001", text, Span(str(path), 1, 1), "give the path of a file"))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        span = Span(str(path), 1, 1)
        hint = "save the file as UTF-8"
        raise SpecError(
            Diagnostic("SE001", f"not UTF-8 text: byte {error.start} is {error.object[error.start]:#x}", span, hint)
        ) from None
    except OSError as error:
        hint = "give the path of a spec" if path.is_dir() else "check the path"
        raise SpecError(Diagnostic("SE001", f"cannot be read: {error.strerror}", Span(str(path), 1, 1), hint)) from None
    return Source(str(path), text)
