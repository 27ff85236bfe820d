"""SVG elements as escaped text, colours, and text widths. Nothing here depends on networks."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

PAPER, BAND, LINE, INK, MUTED, WIRE = "#ffffff", "#f4f6f9", "#d5dbe4", "#1b1f27", "#5d6675", "#7d8898"

FILLS: dict[str, tuple[str, str]] = {
    "conv": ("#c6daf8", "#6c95dc"),
    "pointwise": ("#e9f1fd", "#9db9e9"),
    "depthwise": ("#d0eee7", "#5fb3a1"),
    "pool": ("#f5edd6", "#cbb06a"),
    "linear": ("#ebe3f6", "#b19bd9"),
    "concat": ("#e4e8ee", "#8d98a8"),
    "gate": ("#fdebdc", "#e0a36d"),
    "gone": ("#ffffff", "#c02626"),
    "other": ("#eef0f3", "#abb4c0"),
}
"""Fill and outline of every kind of part."""

RULES = ("#b8480a", "#2159c4", "#0f766e", "#8a3ffc", "#9f1853", "#5c6b00", "#00539a", "#6f4e37")
"""One colour per rule, repeated if there are more rules; dark enough for white text."""

STYLE = (
    ".sesurgery{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',Arial,sans-serif;"
    f"font-size:11px;fill:{INK}}}"
    ".sesurgery .code{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'Liberation Mono',monospace;font-weight:600}"
    f".sesurgery .muted{{fill:{MUTED}}}"
    ".sesurgery .mid{text-anchor:middle}.sesurgery .end{text-anchor:end}"
    ".sesurgery .badge{fill:#fff;font-weight:700}"
    ".sesurgery .struck{fill:#c02626;text-decoration:line-through}"
    f".sesurgery .wire{{fill:none;stroke:{WIRE};stroke-width:1.4;stroke-linejoin:round}}"
    f".sesurgery .flow{{fill:none;stroke:{MUTED};stroke-width:1.6}}"
    f".sesurgery .card{{fill:{PAPER};stroke:#bcc5d2}}"
    f".sesurgery .band{{fill:{BAND};stroke:{LINE}}}"
)

_WIDE, _NARROW = frozenset("mwMW@%…→×"), frozenset("iljtfrI.,:;|/ '-()[]")


def width(text: str, size: float = 11, *, code: bool = False, bold: bool = False) -> float:
    """The approximate width of a text in pixels, rather too large than too small."""
    if code:
        return 0.61 * size * len(text)
    letters = sum(0.9 if sign in _WIDE else 0.34 if sign in _NARROW else 0.6 for sign in text)
    return letters * size * (1.06 if bold else 1.0)


def shortened(text: str, most: int) -> str:
    """A text of at most this many characters, with the middle left out."""
    if len(text) <= most:
        return text
    tail = (most - 1) * 2 // 3
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def number(value: float) -> str:
    """A coordinate rounded to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def rect(x: float, y: float, wide: float, high: float, *, radius: float = 4, **more: str) -> str:
    """A rectangle; further attributes with `_` for `-`, `css` for class."""
    return (
        f'<rect x="{number(x)}" y="{number(y)}" width="{number(wide)}" height="{number(high)}" '
        f'rx="{number(radius)}"{_attributes(more)}/>'
    )


def text(x: float, y: float, words: str, css: str = "", **more: str) -> str:
    """One line of text, its baseline at `y`."""
    kept = {"css": css, **more} if css else more
    return f'<text x="{number(x)}" y="{number(y)}"{_attributes(kept)}>{escape(_clean(words))}</text>'


def circle(x: float, y: float, radius: float, **more: str) -> str:
    return f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}"{_attributes(more)}/>'


def path(points: Sequence[tuple[float, float]], css: str = "wire", radius: float = 5) -> str:
    """A line through the points with rounded corners."""
    words = [f"M{number(points[0][0])} {number(points[0][1])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        one, two = _towards(corner, before, radius), _towards(corner, after, radius)
        words.append(f"L{number(one[0])} {number(one[1])}")
        words.append(f"Q{number(corner[0])} {number(corner[1])} {number(two[0])} {number(two[1])}")
    words.append(f"L{number(points[-1][0])} {number(points[-1][1])}")
    return f'<path class="{css}" d="{"".join(words)}"/>'


def arrow(x: float, y: float) -> str:
    """An arrow head that points to the right, with its tip at (x, y)."""
    corners = ((x - 6, y - 4), (x, y), (x - 6, y + 4))
    line = "L".join(f"{number(right)} {number(down)}" for right, down in corners)
    return f'<path d="M{line}Z" fill="{MUTED}"/>'


def ring(x: float, y: float, sign: str) -> str:
    """A sum (+) or a product (×) around (x, y), drawn as lines so that it does not depend on fonts."""
    reach = 4.6 if sign == "+" else 3.3
    ends = ((-reach, 0.0), (reach, 0.0), (0.0, -reach), (0.0, reach))
    if sign != "+":
        ends = ((-reach, -reach), (reach, reach), (-reach, reach), (reach, -reach))
    strokes = "".join(
        f"M{number(x + one[0])} {number(y + one[1])}L{number(x + two[0])} {number(y + two[1])}"
        for one, two in (ends[:2], ends[2:])
    )
    outline = circle(x, y, 8.5, fill=PAPER, stroke=INK, stroke_width="1.3")
    return f'{outline}<path d="{strokes}" stroke="{INK}" stroke-width="1.3"/>'


def group(parts: Sequence[str], title: str = "", x: float = 0, y: float = 0) -> str:
    """Elements moved to (x, y), with a title that viewers show as a tooltip."""
    moved = f' transform="translate({number(x)} {number(y)})"' if x or y else ""
    told = f"<title>{escape(_clean(title))}</title>" if title else ""
    return f"<g{moved}>{told}{''.join(parts)}</g>"


def document(wide: float, high: float, title: str, description: str, body: Sequence[str]) -> str:
    """A whole SVG file with its own background, a title and a description for screen readers."""
    size = f'width="{number(wide)}" height="{number(high)}" viewBox="0 0 {number(wide)} {number(high)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} class="sesurgery" role="img" '
        f"aria-label={quoteattr(_clean(title))}>\n"
        f"<title>{escape(_clean(title))}</title>\n<desc>{escape(_clean(description))}</desc>\n<style>{STYLE}</style>\n"
        + "\n".join([rect(0, 0, wide, high, radius=0, fill=PAPER), *body])
        + "\n</svg>\n"
    )


def _attributes(given: dict[str, str]) -> str:
    names = {key: "class" if key == "css" else key.replace("_", "-") for key in given}
    return "".join(f" {names[key]}={quoteattr(value)}" for key, value in given.items())


def _towards(start: tuple[float, float], end: tuple[float, float], most: float) -> tuple[float, float]:
    """The point at this distance from `start` towards `end`, at most half-way."""
    length = abs(end[0] - start[0]) + abs(end[1] - start[1])
    share = min(most / length, 0.5) if length else 0.0
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def _clean(words: str) -> str:
    """Without the control characters that XML does not allow."""
    return "".join(sign for sign in words if sign >= " " or sign in "\t\n")
