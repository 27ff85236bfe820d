"""Formatting of numbers, tables and plain data, the same in every rendering."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = Sequence[str]


def milliseconds(seconds: float, beside: float | None = None) -> str:
    """Four significant digits in milliseconds, without the unit; as many decimals as `beside` has, where given."""
    magnitude = seconds if beside is None else beside
    digits = 3 if magnitude <= 0 else max(0, 3 - math.floor(math.log10(1e3 * magnitude)))
    return f"{1e3 * seconds:.{min(digits, 6)}f}"


def percent(share: float, digits: int = 1) -> str:
    """0.986 -> "98.6 %". A share just below one is not rounded up to "100 %": one wrong answer stays visible."""
    text = f"{100 * share:.{digits}f}"
    while float(text) == 100 and share < 1 and digits < 6:
        digits += 1
        text = f"{100 * share:.{digits}f}"
    # "95 %" where that is what is meant, "97.0 %" where it is what was measured.
    whole = math.isfinite(100 * share) and math.isclose(100 * share, round(100 * share), abs_tol=1e-9)
    return f"{text.removesuffix('.0') if whole else text} %"


def change(share: float, digits: int = 1) -> str:
    """A relative change with its sign, finer where it would read as nothing: 0.098 -> "+9.8 %", 0.0002 -> "+0.02 %"."""
    while share and digits < 4 and abs(100 * share) < 0.5 * 10**-digits:
        digits += 1
    return f"{100 * share:+.{digits}f} %"


def growth(before: int, after: int) -> str:
    """Growth relative to the value before: "+9.8 %"."""
    return change(after / before - 1) if before else "n/a"


def count(number: float) -> str:
    """A large count with its magnitude: 25557032 -> "25.56 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(number) >= size:
            return f"{number / (1e3 if unit == 'k' else size):.{1 if unit == 'k' else 2}f} {unit}"
    return f"{number:,.0f}"


def file_size(size: int) -> str:
    """Bytes in kB or MB, thousands based."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def small(number: float) -> str:
    """Two significant digits for errors, which span many magnitudes: 2.1e-06."""
    return "0" if number == 0 else f"{number:.2g}"


def plural(number: int, noun: str) -> str:
    """`1 engine`, `2 engines`, `2 processes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def markdown_table(header: Row, rows: Sequence[Row]) -> list[str]:
    """A Markdown table of raw texts, which are escaped here: the first column to the left, the others to the right."""
    rule = "| --- |" + " ---: |" * (len(header) - 1)
    lines = ["| " + " | ".join(markdown(text) for text in row) + " |" for row in (header, *rows)]
    return [lines[0], rule, *lines[1:]]


def markdown(text: str) -> str:
    """A text from outside as Markdown text: no HTML, no markup, one line."""
    for sign in "\\`*_[]#|":
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())


def markdown_code(text: str) -> str:
    """A text from outside as inline code; its fence is longer than any run of backticks in it."""
    line = " ".join(text.split())
    fence = "`"
    while fence in line:
        fence += "`"
    room = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{room}{line}{room}{fence}"


def fields(record: DataclassInstance) -> dict[str, object]:
    """A dataclass's fields as plain JSON data."""
    return {field.name: plain(getattr(record, field.name)) for field in dataclasses.fields(record)}


def plain(value: object) -> object:
    """Frozen data as JSON can hold it: mappings, lists, and null for a number that is not finite."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return fields(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
