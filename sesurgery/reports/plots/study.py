"""Plots of a study: cells with their intervals, accuracy against cost, learning curves."""

from __future__ import annotations

import math
from typing import Any

from sesurgery.reports.plots.canvas import ACCENT, BASELINE, CANDIDATE, FULL, MUTED, Plot, draw, whole_numbers
from sesurgery.studies.answer import Answer, costs, timed

MOST_CURVES = 8


def plots(answer: Answer) -> tuple[Plot, ...]:
    """Those that there is something to draw of."""
    rows = [row for row in answer.rows if row.top1 is not None]
    if not rows:
        return ()
    made = [_cells(answer), _front(answer)]
    return tuple([*made, _curves(answer)] if any(len(row.curve) > 1 for row in rows) else made)


def _cells(answer: Answer) -> Plot:
    rows = [row for row in answer.rows if row.top1 is not None]

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            assert row.top1 is not None
            colour = BASELINE if row.cell.plain else CANDIDATE
            if row.top1.low is not None and row.top1.high is not None:
                axes.plot([100 * row.top1.low, 100 * row.top1.high], [place, place], color=colour)
            axes.plot([100 * row.top1.mean], [place], "o", color=colour)
        axes.set_yticks(range(len(rows)), [str(row.cell) for row in rows])
        axes.invert_yaxis()
        axes.set(xlabel="held-out top-1 (%)")

    reading = (
        "A dot is the mean over seeds, a line its interval for other seeds. Lines that overlap are no test: "
        "cells share seeds, and the table compares them seed by seed."
    )
    return Plot("Accuracy by cell", draw("cells", FULL, 90 + 26 * len(rows), paint), reading)


def _front(answer: Answer) -> Plot:
    cost = costs(answer.rows)
    by_latency = timed(answer.rows)
    scale = 1e3 if by_latency else 1e-6
    known = [index for index, row in enumerate(answer.rows) if row.top1 is not None and math.isfinite(cost[index])]

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for index in known:
            row = answer.rows[index]
            assert row.top1 is not None
            colour = BASELINE if row.cell.plain else CANDIDATE
            if by_latency and row.latency is not None:
                ends = [scale * row.latency.low, scale * row.latency.high]
                axes.plot(ends, [100 * row.top1.mean] * 2, color=colour)
            axes.plot([scale * cost[index]], [100 * row.top1.mean], "o", color=colour)
            if index == answer.taken:
                axes.plot(
                    [scale * cost[index]], [100 * row.top1.mean], "o", color=ACCENT, markersize=13, fillstyle="none"
                )
        front = [
            (scale * cost[index], 100 * row.top1.mean) for index in answer.pareto if (row := answer.rows[index]).top1
        ]
        axes.plot(*zip(*front, strict=True), color=MUTED, linestyle="--")
        middle = sum(axes.get_xlim()) / 2
        for index, (x, y) in zip((each for each in answer.pareto if answer.rows[each].top1), front, strict=True):
            side = "left" if x < middle else "right"
            axes.annotate(
                str(answer.rows[index].cell),
                (x, y),
                (10 if side == "left" else -10, -12),
                textcoords="offset points",
                ha=side,
            )
        axes.set(xlabel="latency (ms)" if by_latency else "MACs (millions)", ylabel="held-out top-1 (%)")

    reading = (
        "Further left is cheaper, further up is better. The dashed line is the Pareto front, the ring the "
        "recommended point."
    )
    if by_latency:
        reading += " A line through a dot is the interval of its latency."
    return Plot(f"Accuracy against {'latency' if by_latency else 'cost'}", draw("front", FULL, 320, paint), reading)


def _curves(answer: Answer) -> Plot:
    rows = [row for row in answer.rows if len(row.curve) > 1][:MOST_CURVES]
    left_out = sum(len(row.curve) > 1 for row in answer.rows) - len(rows)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        styles = ("-", "--", ":", "-.")
        for plain in (True, False):
            for place, row in enumerate(each for each in rows if each.cell.plain == plain):
                colour = BASELINE if plain else (CANDIDATE, ACCENT)[place // len(styles) % 2]
                percent = [100 * top1 for top1 in row.curve]
                style = styles[place % len(styles)]
                axes.plot(range(1, len(percent) + 1), percent, style, color=colour, label=str(row.cell))
        axes.set(xlabel="epoch", ylabel="held-out top-1 (%)")
        whole_numbers(axes.xaxis)
        axes.legend(loc="lower right")

    cut = f" {left_out} more cells are not drawn." if left_out else ""
    return Plot("Learning curves", draw("curves", FULL, 320, paint), f"Each is the mean over a cell's seeds.{cut}")
