"""Arrange cards in bands and bands on the page, left to right and then down, like text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sesurgery.drawing import ink as ink
from sesurgery.drawing.card import Painted

WIDE = 1240
"""Largest width of a row of cards."""

PAD, TOP, BETWEEN, ROWS = 14, 34, 22, 16


@dataclass(frozen=True)
class Band:
    """Consecutive cards of one resolution."""

    name: str
    detail: str
    cards: tuple[Painted, ...]


def flow(bands: Sequence[Band], margin: float, top: float) -> tuple[list[str], float, float]:
    """The bands as SVG, with the page's width and the height used."""
    drawn: list[str] = []
    boxes = [_Box(band) for band in bands]
    y, widest = top, 0.0
    for row in _rows([box.wide for box in boxes], WIDE + 2 * PAD, BETWEEN):
        x, high = margin, max(boxes[index].high for index in row)
        for place, index in enumerate(row):
            drawn.append(boxes[index].svg(x, y, high))
            x += boxes[index].wide
            if place < len(row) - 1:
                x += BETWEEN
                if bands[index + 1].cards[0].card.follows(bands[index].cards[-1].card):
                    drawn += _arrow(x - 2, y + TOP / 2 + 3, whole=True)
        widest = max(widest, x)
        y += high + BETWEEN
    return drawn, widest + margin, y


class _Box:
    """A band: a heading with the resolution, and its cards in rows of similar length."""

    def __init__(self, band: Band) -> None:
        self.band = band
        wides = [card.wide for card in band.cards]
        self.rows = _balanced(wides)
        self.highs = [max(band.cards[index].high for index in row) for row in self.rows]
        lengths = [sum(wides[index] for index in row) + BETWEEN * (len(row) - 1) for row in self.rows]
        heading = ink.width(band.name, 14, bold=True) + 12 + ink.width(band.detail, 11.5)
        self.wide = max(*lengths, heading) + 2 * PAD
        self.high = TOP + sum(self.highs) + ROWS * (len(self.rows) - 1) + PAD

    def svg(self, x: float, y: float, high: float) -> str:
        drawn = [ink.rect(0, 0, self.wide, high, radius=9, css="band")]
        drawn.append(ink.text(PAD, 22, self.band.name, font_size="14", font_weight="700"))
        after = PAD + ink.width(self.band.name, 14, bold=True) + 8
        drawn.append(ink.text(after, 22, self.band.detail, "muted", font_size="11.5"))
        top = float(TOP)
        for row, tall in zip(self.rows, self.highs, strict=True):
            left = float(PAD)
            for place, index in enumerate(row):
                card = self.band.cards[index]
                if index and card.card.follows(self.band.cards[index - 1].card):
                    drawn += _arrow(left, top + 13, whole=place > 0)
                drawn.append(card.svg(left, top))
                left += card.wide + BETWEEN
            top += tall + ROWS
        return ink.group(drawn, "", x, y)


def _arrow(x: float, y: float, *, whole: bool) -> list[str]:
    """Into the card whose left edge is at x, from the card before it or from the row above."""
    start = x - BETWEEN + 2 if whole else x - PAD + 2
    return [ink.path([(start, y), (x - 4, y)], "flow"), ink.arrow(x - 1, y)]


def _balanced(wides: Sequence[float]) -> list[list[int]]:
    """Rows of minimal length for the smallest number of rows."""
    rows = _rows(wides, WIDE, BETWEEN)
    low, high = max(wides), float(WIDE)
    while len(rows) > 1 and high - low > 4:
        middle = (low + high) / 2
        tried = _rows(wides, middle, BETWEEN)
        if len(tried) > len(rows):
            low = middle
        else:
            rows, high = tried, middle
    return rows


def _rows(wides: Sequence[float], most: float, between: float) -> list[list[int]]:
    """Indices in rows of at most that length; a longer item has its own row."""
    rows: list[list[int]] = []
    used = 0.0
    for index, wide in enumerate(wides):
        if rows and used + between + wide <= most:
            rows[-1].append(index)
            used += between + wide
        else:
            rows.append([index])
            used = wide
    return rows
