"""The plot of a price list: what every block costs against its place in the network."""

from __future__ import annotations

from typing import Any

import numpy as np

from sesurgery.reports.plots.canvas import ACCENT, FULL, MUTED, Plot, draw
from sesurgery.reports.wording import milliseconds
from sesurgery.verification.cost import Prices, dear_first

MOST_NAMES = 40


def against_place(name: str, prices: Prices) -> Plot:
    """A bar a block in the order of the network, with its interval; the profile as a mark if there is one."""
    blocks = prices.blocks
    values = 1e3 * np.array([block.time.value for block in blocks])
    reaches = 1e3 * np.array(
        [
            [block.time.value - block.time.low for block in blocks],
            [block.time.high - block.time.value for block in blocks],
        ]
    )
    profile = [None if block.profile is None else 1e3 * block.profile for block in blocks]

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(blocks))
        axes.bar(places, values, color=ACCENT, width=0.7, label="price")
        axes.errorbar(places, values, yerr=reaches, fmt="none", ecolor=MUTED, capsize=3, label="its interval")
        if all(each is not None for each in profile):
            axes.plot(places, profile, "D", color=MUTED, markersize=4, label="the engine's own profile")
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set(ylabel="milliseconds")
        step = -(-len(blocks) // MOST_NAMES)
        axes.set_xticks(places[::step], [block.key for block in blocks][::step], rotation=60, ha="right", fontsize=8)
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.3, columnspacing=1.2)

    dearest = dear_first(blocks)[0]
    return Plot(
        f"The dearest block is {dearest.key}, {milliseconds(dearest.time.value, prices.whole)} ms",
        draw(f"{name}-prices", FULL, 340, paint),
        "What a run takes for the block, in the order of the network. A bar whose line crosses zero cannot be "
        "told from nothing.",
    )
