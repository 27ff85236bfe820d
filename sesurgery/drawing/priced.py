"""The picture of a network with its blocks coloured by cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sesurgery.drawing.picture import to_svg
from sesurgery.graph import GraphView
from sesurgery.planner import Plan

SHADES = ("#7b8794", "#5a7fb0", "#3465a8", "#7a3f9d", "#a3195b", "#7f0d1f")
"""From cheap to expensive, darker also in grey scale; white text is readable on each."""


def priced_svg(view: GraphView, plan: Plan, title: str, prices: Mapping[str, tuple[float, str]]) -> str:
    """The picture of a plan; `prices` has each block's price and its text by key."""
    dearest = max((price for price, _ in prices.values()), default=0.0)
    sites = tuple(replace(site, rule=prices[site.key][1]) if site.key in prices else site for site in plan.sites)
    colours = {words: _shade(price, dearest) for price, words in prices.values()}
    return to_svg(view, replace(plan, sites=sites), title, colours)


def _shade(price: float, dearest: float) -> str:
    share = max(0.0, price / dearest) if dearest > 0 else 0.0
    return SHADES[min(len(SHADES) - 1, int(share * len(SHADES)))]
