"""The plot of a study's learning curves."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from sesurgery.reports.plots.study import MOST_CURVES, plots
from sesurgery.studies.answer import Answer, Outcome, answer
from sesurgery.studies.cells import Cell

CURVES = "Learning curves"


def made(cells: int, epochs: int) -> Answer:
    """A study of a plain network and cells with blocks, each trained for some epochs from two seeds."""
    all_ = [Cell({}, plain=True), *(Cell({"surgery[0].insert.reduction": 2 + number}) for number in range(cells))]
    outcomes = [
        Outcome(
            cell,
            seed,
            "runs/none",
            0.5 + 0.1 * seed,
            100,
            1000,
            1.0,
            curve=tuple(0.1 * epoch + 0.1 * seed for epoch in range(1, epochs + 1)),
        )
        for cell in all_
        for seed in (0, 1)
    ]
    return answer("tiny", {}, (0, 1), outcomes)


def test_the_learning_curve_of_each_cell_is_the_mean_over_its_seeds() -> None:
    found = made(2, 3)
    for row in found.rows:
        assert row.curve == pytest.approx([0.15, 0.25, 0.35])
    (plot,) = [plot for plot in plots(found) if plot.title == CURVES]
    assert plot.reading == "Each is the mean over a cell's seeds."
    for text in ("plain", "reduction=2", "reduction=3", "epoch", "held-out top-1 (%)"):
        assert f">{text}<" in plot.svg


def test_of_many_cells_it_says_how_many_are_not_drawn() -> None:
    (plot,) = [plot for plot in plots(made(MOST_CURVES + 1, 3)) if plot.title == CURVES]
    assert plot.reading.endswith(" 2 more cells are not drawn.")
    assert f">reduction={MOST_CURVES}<" in plot.svg
    assert f">reduction={MOST_CURVES + 1}<" not in plot.svg


def test_no_two_curves_look_alike_where_each_cell_has_a_plain_network_of_its_own() -> None:
    outcomes = [
        Outcome(Cell({"train.epochs": number}, plain=plain), 0, "r", 0.5, 100, 1000, curve=(0.1, 0.2))
        for number in range(MOST_CURVES // 2)
        for plain in (True, False)
    ]
    (plot,) = [plot for plot in plots(answer("tiny", {}, (0,), outcomes)) if plot.title == CURVES]
    # Each style is there twice: of the curve, and in the legend.
    drawn = Counter(re.findall(r'style="([^"]*stroke: var\(--(?:baseline|candidate|accent)\)[^"]*)"', plot.svg))
    assert list(drawn.values()) == [2] * MOST_CURVES


def test_of_trainings_of_one_epoch_there_are_no_curves() -> None:
    assert CURVES not in [plot.title for plot in plots(made(2, 1))]
