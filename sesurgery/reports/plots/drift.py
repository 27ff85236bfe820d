"""The plot of an engine's error growth along the network."""

from __future__ import annotations

from typing import Any

import numpy as np

from sesurgery.reports.plots.canvas import ACCENT, BAD, HALF, MUTED, Plot, draw, powers_of_ten
from sesurgery.reports.wording import small
from sesurgery.verification.drift import Drift

MOST_NAMES = 24


def growth(name: str, drift: Drift) -> Plot:
    """The relative error at every place, in the order of the network; what is not finite stands at the top."""
    errors = np.array([each.error for each in drift.errors])
    finite = np.isfinite(errors)
    floor = max(1e-12, float(errors[finite & (errors > 0)].min(initial=1.0)) / 3)
    top = max(drift.tolerance, float(errors[finite].max(initial=0.0))) * 10
    shown = np.where(finite, np.maximum(errors, floor), top)
    over = ~(errors <= drift.tolerance)
    blocks = np.array([each.site is not None for each in drift.errors])

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(shown))
        axes.plot(places, shown, color=MUTED, linewidth=1)
        axes.plot(places[blocks & ~over], shown[blocks & ~over], "o", color=ACCENT, markersize=6, label="block")
        axes.plot(
            places[~blocks & ~over], shown[~blocks & ~over], "s", color=MUTED, markersize=4, label="end of a stage"
        )
        if over.any():
            axes.plot(places[over], shown[over], "X", color=BAD, markersize=8, label="over tolerance")
        axes.axhline(drift.tolerance, color=BAD, linestyle="--", linewidth=1.2)
        axes.set(yscale="log", ylim=(floor / 2, top * 2), ylabel="relative error")
        powers_of_ten(axes.yaxis)
        step = -(-len(shown) // MOST_NAMES)
        axes.set_xticks(
            places[::step], [each.name for each in drift.errors][::step], rotation=60, ha="right", fontsize=8
        )
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.3, columnspacing=1.2)

    first = drift.first
    title = f"first over tolerance: {first.name}" if first else f"at most {small(float(errors.max(initial=0.0)))}"
    return Plot(
        f"Drift along the network, {title}",
        draw(f"{name}-drift", HALF, 380, paint),
        "Root mean square of the difference over that of the model's values, of the worst sample. The dashed line is "
        "what the precision explains. A value that is not finite stands at the top.",
    )
