"""Plots of a race: how the runs are spread, how they went over time, what the blocks cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sesurgery.reports.model import LatencySection
from sesurgery.reports.plots.canvas import (
    ACCENT,
    BASELINE,
    CANDIDATE,
    FULL,
    HALF,
    INK,
    MUTED,
    Plot,
    draw,
    whole_numbers,
)
from sesurgery.reports.wording import change, milliseconds, percent, plural
from sesurgery.verification.doubt import DRIFTING
from sesurgery.verification.latency import EngineTiming, LatencyReport

COLOURS = (CANDIDATE, BASELINE, ACCENT)
BINS = 56


def spread(name: str, report: LatencyReport) -> Plot:
    """Histograms of the engines' kept runs over one set of bins, medians marked."""
    engines = report.engines
    low = min(float(timing.samples.min()) for timing in engines)
    high = max(_edge(timing) for timing in engines)
    edges = np.linspace(low, high + 0.02 * (high - low) + 1e-9 * high, BINS + 1)
    beyond = int(sum((timing.samples > edges[-1]).sum() for timing in engines))

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        heights = []
        for timing, colour in zip(engines, COLOURS, strict=False):
            counts, _ = np.histogram(timing.samples, edges)
            heights.append(counts.max())
            axes.stairs(counts, 1e3 * edges, fill=True, color=colour, alpha=0.3)
            axes.stairs(counts, 1e3 * edges, color=colour, label=timing.name)
        for timing, colour in zip(engines, COLOURS, strict=False):
            median = 1e3 * timing.stats.median_seconds
            axes.axvline(median, color=colour, linestyle="--", linewidth=1.4)
        axes.set_ylim(0, 1.08 * max(heights))
        axes.set(xlabel="time of one run (ms)", ylabel="runs")
        whole_numbers(axes.yaxis)
        figure.legend(loc="outside upper left", ncols=3)

    medians = ", ".join(f"{timing.name} {milliseconds(timing.stats.median_seconds)} ms" for timing in engines)
    cut = f" {plural(beyond, 'slower run')} lie beyond the right edge." if beyond else ""
    return Plot(
        f"Median run: {medians}",
        draw(f"{name}-spread", HALF, 300, paint),
        "Each bar counts runs of about the same time; further left is faster. Dashed lines are medians. "
        f"Humps that hardly overlap mean a difference that every run shows.{cut}",
    )


def rounds(name: str, report: LatencyReport) -> Plot:
    """Each round's median over the measurement, by engine."""
    engines = report.engines
    every = 1e3 * np.concatenate([timing.round_medians for timing in engines])
    ceiling = _ceiling(every)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for timing, colour, marker in zip(engines, COLOURS, "os^", strict=False):
            medians = 1e3 * timing.round_medians
            number = np.arange(1, len(medians) + 1)
            axes.plot(number, np.minimum(medians, ceiling), color=colour, label=timing.name,
                      marker=marker, markersize=3, linewidth=1.1)  # fmt: skip
            outside = medians > ceiling
            axes.plot(number[outside], np.full(outside.sum(), ceiling), "^", color=colour, markersize=7)
        axes.set(xlabel="round", ylabel="median of the round (ms)")
        whole_numbers(axes.xaxis)
        figure.legend(loc="outside upper left", ncols=3)

    hidden = int((every > ceiling).sum())
    cut = f" Triangles at the top: {plural(hidden, 'round')} slower than the plot shows." if hidden else ""
    return Plot(
        _steadiness(engines),
        draw(f"{name}-rounds", HALF, 300, paint),
        "Flat lines mean a quiet machine. Lines that jump together are the machine, and cancel in the SE tax; steps of "
        f"one line are the engine loaded afresh to another place. The vertical axis does not begin at zero.{cut}",
    )


def tax(name: str, sections: Sequence[LatencySection]) -> Plot | None:
    """One line a race: the tax of every round, their median, and the confidence interval, beside zero."""
    races = [(section.title, section.report.tax) for section in sections if section.report.tax]
    if not races:
        return None

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        shown = [0.0]
        for line, (_, found) in enumerate(races):
            values = 100 * np.asarray(found.per_round)
            # A fixed scatter up and down, so that the same report draws the same picture.
            offsets = 0.24 + 0.1 * np.sin(2.4 * np.arange(len(values)))
            bounds = np.percentile(values, (2.5, 97.5))
            inside = (values >= bounds[0]) & (values <= bounds[1])
            axes.plot(values[inside], line + offsets[inside], "o", color=MUTED, markersize=4, alpha=0.4, mew=0)
            axes.plot([100 * found.low, 100 * found.high], [line, line], color=CANDIDATE, linewidth=5,
                      solid_capstyle="butt")  # fmt: skip
            axes.plot(100 * found.value, line, "D", color=CANDIDATE, markersize=9, mew=0)
            axes.annotate(change(found.value), (100 * found.value, line), (0, 10), textcoords="offset points",
                          ha="center", weight="bold")  # fmt: skip
            shown += [*bounds.tolist(), 100 * found.low, 100 * found.high]
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.set_yticks(range(len(races)), [title for title, _ in races])
        room = 0.06 * (max(shown) - min(shown) or 1)
        axes.set(xlim=(min(shown) - room, max(shown) + room), ylim=(len(races) - 0.4, -0.65))
        axes.set_xlabel("SE tax: time with the blocks over time without them, minus one (%)")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)

    level = percent(races[0][1].confidence)
    return Plot(
        "The blocks cost " + ", ".join(f"{change(found.value)} time on {title}" for title, found in races),
        draw(f"{name}-tax", FULL, 110 + 62 * len(races), paint),
        f"The diamond is the tax, the bar its {level} confidence interval, each dot one round (the middle 95 %). A bar "
        "that touches the line at zero is not significantly different from no cost. Rounds of one placement in memory "
        "move together: the interval counts placements.",
    )


def _edge(timing: EngineTiming) -> float:
    """Where a histogram may end: a few stalled runs must not press all the others into one bar."""
    lower, upper = np.percentile(timing.samples, (25, 75))
    return float(min(np.percentile(timing.samples, 99), upper + 6 * (upper - lower)))


def _ceiling(medians: Any) -> float:
    """The top of the plot: the largest round, unless it would press all the others flat."""
    usual = float(np.percentile(medians, 95))
    span = usual - float(medians.min())
    largest = float(medians.max())
    return largest if largest <= usual + 3 * span else usual + span


def _steadiness(engines: tuple[EngineTiming, ...]) -> str:
    drift = max((timing.drift for timing in engines), key=abs)
    if abs(drift) <= DRIFTING:
        return f"No drift: the halves of the measurement differ by {percent(abs(drift))} at most"
    return f"The machine drifted: the second half ran {percent(abs(drift))} {'slower' if drift > 0 else 'faster'}"
