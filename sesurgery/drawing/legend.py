"""The legend: the colours and symbols that occur in a picture."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from sesurgery.drawing import ink as ink
from sesurgery.drawing.card import Card
from sesurgery.planner import Plan, Site
from sesurgery.spec.plugins import options_to_dict

_MEANINGS = {
    "conv": ("3×3, 64, /2", "convolution: kernel, channels, /stride"),
    "pointwise": ("1×1, 64", "1 × 1 convolution"),
    "depthwise": ("dw 3×3, 64", "depthwise convolution"),
    "pool": ("pool", "pooling"),
    "linear": ("linear", "linear layer"),
    "other": ("name", "module taken as a whole"),
    "gate": ("se", "channel gate of the network"),
    "gone": ("se", "channel gate that is removed"),
}


def legend(
    cards: Sequence[Card], plan: Plan, colours: Mapping[str, str], x: float, y: float, wide: float
) -> tuple[list[str], float]:
    """The legend as SVG from (x, y) down, and where it ends."""
    kinds = {part.kind for card in cards for part in card.wiring.parts.values()}
    entries = [_rule(rule, colour, plan) for rule, colour in colours.items()]
    entries += [_swatch(kind, *words) for kind, words in _MEANINGS.items() if kind in kinds]
    if "sum" in kinds:
        entries.append((ink.ring(9, 0, "+"), 18.0, "sum"))
    if "product" in kinds:
        entries.append((ink.ring(9, 0, "×"), 18.0, "product"))
    if any(len(card.scopes) > 1 for card in cards):
        box = ink.rect(0, -8.5, 30, 17, radius=8.5, fill=ink.INK)
        entries.append(
            (box + ink.text(15, 4.2, "×3", "badge mid", font_size="12"), 30.0, "number of equal units in a row")
        )
    drawn: list[str] = []
    left, top = x, y + 12
    for sign, room, words in entries:
        length = room + 7 + ink.width(words, 11.5)
        if left > x and left + length > x + wide:
            left, top = x, top + 26
        text = ink.text(room + 7, 4, words, font_size="11.5")
        drawn.append(ink.group([sign, text], "", left, top))
        left += length + 18
    return drawn, top + 14


def _swatch(kind: str, sample: str, words: str) -> tuple[str, float, str]:
    fill, line = ink.FILLS[kind]
    round_, room = kind in ("gate", "gone"), ink.width(sample) + 14
    dashes = {"stroke_dasharray": "3 2"} if kind == "gone" else {}
    box = ink.rect(0, -9, room, 18, radius=9 if round_ else 4, fill=fill, stroke=line, **dashes)
    return box + ink.text(room / 2, 3.9, sample, "struck mid" if kind == "gone" else "mid"), room, words


def _rule(rule: str, colour: str, plan: Plan) -> tuple[str, float, str]:
    sites = [site for site in plan.sites if site.rule == rule]
    room = ink.width(rule, 11, bold=True) + 14
    box = ink.rect(0, -9, room, 18, radius=9, fill=colour)
    kinds = Counter(_block(site) for site in sites)
    words = ", ".join(f"{count} × {name}" for name, count in kinds.items())
    return box + ink.text(room / 2, 3.9, rule, "badge mid"), room, f"inserted: {words}"


def _block(site: Site) -> str:
    """The block with the options that are not its defaults."""
    usual = {item.name: item.default for item in dataclasses.fields(type(site.block.options))}  # type: ignore[arg-type]
    given = options_to_dict(site.block, "block")
    unusual = [f"{key}={value}" for key, value in given.items() if key in usual and value != usual[key]]
    return site.block.name + (f"({', '.join(unusual)})" if unusual else "")
