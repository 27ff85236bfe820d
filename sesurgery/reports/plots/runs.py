"""Plots of several runs: how they learned, how long an engine's run takes, what blocks cost, accuracy against time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sesurgery.reports.model import LatencySection, RunReport
from sesurgery.reports.pages.top1_interval import interval
from sesurgery.reports.plots.canvas import ACCENT, BASELINE, CANDIDATE, FULL, INK, MUTED, Plot, draw, whole_numbers
from sesurgery.reports.wording import change, milliseconds, percent
from sesurgery.verification.latency import EngineTiming

MOST_CURVES, MOST_RACES = 8, 16
STYLES = ("-", "--", ":", "-.")
Raced = tuple[RunReport, LatencySection]


def plots(reports: Sequence[RunReport]) -> tuple[Plot, ...]:
    """Those that there is something to draw of."""
    made = []
    trained = [report for report in reports if report.training and len(report.training.epochs) > 1]
    raced = [(report, section) for report in reports for section in report.latency]
    if trained:
        made.append(_curves(trained))
    if raced:
        made.append(_times(raced[:MOST_RACES], len(raced)))
    taxed = [(report, section) for report, section in raced if section.report.tax]
    if taxed:
        made.append(_taxes(taxed[:MOST_RACES], len(taxed)))
    both = [(report, section) for report, section in raced if report.training]
    if len({report.title for report, _ in both}) > 1:
        made.append(_front(both))
    return tuple(made)


def _curves(reports: Sequence[RunReport]) -> Plot:
    shown = reports[:MOST_CURVES]

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for place, report in enumerate(shown):
            assert report.training is not None
            rows = report.training.epochs
            colour = (CANDIDATE, BASELINE, ACCENT)[place % 3]
            axes.plot([row.epoch for row in rows], [100 * row.top1 for row in rows], STYLES[place // 3], color=colour,
                      marker="os^"[place % 3], markersize=4, label=report.title)  # fmt: skip
        axes.set(xlabel="epoch", ylabel="held-out top-1 (%)")
        whole_numbers(axes.xaxis)
        figure.legend(loc="outside upper left", ncols=3)

    best = max(shown, key=lambda report: report.training.top1 if report.training else 0.0)
    assert best.training is not None
    return Plot(
        f"{best.title} ends highest, at {percent(best.training.top1, 2)}",
        draw("runs-curves", FULL, 320, paint),
        f"Held-out top-1 after each epoch.{_cut(len(reports), MOST_CURVES)}",
    )


def _times(raced: Sequence[Raced], count: int) -> Plot:
    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for line, (_, section) in enumerate(raced):
            _spread(axes, line - 0.14, section.report.candidate, CANDIDATE, "o", "with blocks" if line == 0 else None)
            if section.report.baseline:
                _spread(axes, line + 0.14, section.report.baseline, BASELINE, "s", "without" if line == 0 else None)
        _rows(axes, raced)
        axes.set(xlabel="time of one run (ms)", xlim=(0, None))
        figure.legend(loc="outside upper left", ncols=2)

    report, section = min(raced, key=lambda each: each[1].report.candidate.stats.median_seconds)
    median = milliseconds(section.report.candidate.stats.median_seconds)
    return Plot(
        f"Fastest: {report.title} on {section.title}, {median} ms",
        draw("runs-times", FULL, 90 + 44 * len(raced), paint),
        "A dot is the median, the thick line the middle half of the runs, the thin one the middle nine tenths."
        f"{_cut(count, MOST_RACES)}",
    )


def _spread(axes: Any, line: float, timing: EngineTiming, colour: str, marker: str, label: str | None) -> None:
    low, lower, middle, upper, high = 1e3 * np.percentile(timing.samples, (5, 25, 50, 75, 95))
    axes.plot([low, high], [line, line], color=colour, linewidth=1.4)
    axes.plot([lower, upper], [line, line], color=colour, linewidth=5, solid_capstyle="butt")
    axes.plot([middle], [line], marker, color=colour, markersize=7, label=label)


def _taxes(raced: Sequence[Raced], count: int) -> Plot:
    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        exported = next((line for line, (_, section) in enumerate(raced) if section.report.as_exported_tax), None)
        for line, (_, section) in enumerate(raced):
            found, before = section.report.tax, section.report.as_exported_tax
            assert found is not None
            if before:
                below = line + 0.26
                axes.plot([100 * before.low, 100 * before.high], [below, below], color=ACCENT, linewidth=2)
                axes.plot([100 * before.value], [below], "^", color=ACCENT, markersize=7,
                          label="as exported" if line == exported else None)  # fmt: skip
            axes.plot([100 * found.low, 100 * found.high], [line, line], color=CANDIDATE, linewidth=5,
                      solid_capstyle="butt")  # fmt: skip
            axes.plot([100 * found.value], [line], "D", color=CANDIDATE, markersize=8,
                      label="as built" if line == 0 else None)  # fmt: skip
            axes.annotate(change(found.value), (100 * found.value, line), (0, 9), textcoords="offset points",
                          ha="center")  # fmt: skip
        axes.axvline(0, color=INK, linewidth=1.2)
        _rows(axes, raced)
        axes.set_xlabel("SE tax (%)")
        figure.legend(loc="outside upper left", ncols=2)

    cheap = min(raced, key=lambda each: each[1].report.tax.value if each[1].report.tax else 0.0)
    assert cheap[1].report.tax is not None
    return Plot(
        f"Blocks cost least in {cheap[0].title} on {cheap[1].title}: {change(cheap[1].report.tax.value)}",
        draw("runs-taxes", FULL, 100 + 44 * len(raced), paint),
        "Time with the blocks over time without them, minus one, each from a race of its own, with its confidence "
        f"interval. One that touches zero is not significantly different from no cost.{_cut(count, MOST_RACES)}",
    )


def _front(raced: Sequence[Raced]) -> Plot:
    titles = list(dict.fromkeys(section.title for _, section in raced))

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for place, title in enumerate(titles):
            colour = (CANDIDATE, BASELINE, ACCENT, MUTED)[place % 4]
            own = [(report, section.report.candidate) for report, section in raced if section.title == title]
            for number, (report, timing) in enumerate(own):
                assert report.training is not None
                at = 1e3 * timing.stats.median_seconds, 100 * report.training.top1
                if (bounds := interval(report)) is not None:
                    axes.plot([at[0]] * 2, [100 * bounds[0], 100 * bounds[1]], color=colour, linewidth=1.4)
                axes.plot(*at, "os^D"[place % 4], color=colour, markersize=8, label=title if number == 0 else None)
                axes.annotate(report.title, at, (8, 4), textcoords="offset points", fontsize=10)
        axes.margins(x=0.18)
        axes.set(xlabel="median time of one run (ms)", ylabel="held-out top-1 (%)")
        figure.legend(loc="outside upper left", ncols=2)

    return Plot(
        "Accuracy against time",
        draw("runs-front", FULL, 340, paint),
        "Further left is faster, further up is better. Lines are 95 % intervals of top-1, where the number of held-out "
        "samples is known.",
    )


def _rows(axes: Any, raced: Sequence[Raced]) -> None:
    axes.set_yticks(range(len(raced)), [f"{report.title}\n{section.title}" for report, section in raced], fontsize=10)
    axes.set_ylim(len(raced) - 0.4, -0.7)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _cut(count: int, most: int) -> str:
    return f" {count - most} more are not drawn." if count > most else ""
