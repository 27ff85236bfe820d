"""A matplotlib figure as inline SVG: themed by the page's CSS, with unique ids and nothing to load."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

# Stand-ins that no plot uses for anything else; the page's CSS variables take their place, so that one SVG serves
# the light page, the dark page and paper.
INK, MUTED, GRID = "#010203", "#020304", "#030405"
CANDIDATE, BASELINE, BAD, ACCENT = "#040506", "#050607", "#060708", "#070809"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    CANDIDATE: "candidate",
    BASELINE: "baseline",
    BAD: "bad",
    ACCENT: "accent",
}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
FULL, HALF = 880, 424
"""Widths of a plot in CSS pixels: across the page, and beside another."""

_STYLE = {
    "svg.fonttype": "none",
    # An engine named "a$b$" is a name, not a formula.
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 12,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 12,
    "lines.linewidth": 1.6,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Plot:
    """A drawing with the finding as its title and a sentence on how to read it."""

    title: str
    svg: str
    reading: str


def draw(name: str, width: int, height: int, paint: Callable[[Any], None]) -> str:
    """Let `paint` fill a figure of so many CSS pixels and give it as inline SVG; `name` must be unique on the page."""
    # One unit of the SVG is one point of matplotlib: at 72 an inch a font of 12 is 12 pixels on the page.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}), io.StringIO() as stream:
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        paint(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
        return _inline(stream.getvalue(), width, height)


def whole_numbers(axis: Any) -> None:
    """Ticks of an axis that counts."""
    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def powers_of_ten(axis: Any) -> None:
    """A logarithmic axis with few ticks, written 10⁻³: matplotlib's own would need its formula parser, which is off."""
    axis.set_major_locator(LogLocator(numticks=6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: "10" + str(round(math.log10(value))).translate(_RAISED)))


def _inline(svg: str, width: int, height: int) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<svg[^>]*>", f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">', body, count=1)
    body = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # Tags only: an engine may be called "v1.2345" or "#010203".
    body = re.sub(r"<[^>]*>", lambda tag: _tidy(tag[0]), body)
    return re.sub(r"\s*\n\s*", " ", body).strip()


def _tidy(tag: str) -> str:
    # Ids of groups repeat from plot to plot; those of markers and clip paths are salted with the plot's name.
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r" font-family: [^;\"]*;?", "", tag)
    for stand_in, variable in _VARIABLES.items():
        tag = tag.replace(stand_in, f"var(--{variable})")
    # Coordinates to a hundredth of a pixel.
    return re.sub(r"(?<=\d)\.(\d{2})\d+\b", r".\1", tag)
