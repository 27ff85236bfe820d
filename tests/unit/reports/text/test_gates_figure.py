"""The picture of gates by class: which channels it draws, and its bands."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.figure
import numpy as np
import pytest

from sesurgery.reports.text.gates import CURVE, draw, evenly
from sesurgery.verification.gates import measure

NAMES = {0: "a", 1: "b", 2: "c"}
LABELS = np.repeat([0, 1, 2], 20)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved, in place of files."""
    found: list[Any] = []
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda figure, *_, **__: found.append(figure))
    return found


def panels(drawn: list[Any], *channels: int) -> tuple[list[Any], list[Any]]:
    """The blocks, and the panel of each."""
    draws = np.random.default_rng(0)
    blocks = [
        measure(f"se/x[{number}]", draws.uniform(0.2, 0.8, (len(LABELS), count)), LABELS, NAMES, 1.0)
        for number, count in enumerate(channels)
    ]
    draw(SimpleNamespace(blocks=blocks), Path("gates.png"), "png")  # type: ignore[arg-type]
    (figure,) = drawn
    return blocks, [panel for panel in figure.axes if panel.get_visible()]


@pytest.mark.parametrize("channels", [50, 51, 64, 120, 2048])
def test_of_many_channels_fifty_are_drawn_from_the_first_to_the_last_at_even_distances(channels: int) -> None:
    chosen = evenly(channels)
    assert CURVE == 50
    assert len(chosen) == len(set(chosen)) == 50
    assert (chosen[0], chosen[-1]) == (0, channels - 1)
    assert np.ptp(np.diff(chosen)) <= 1
    assert evenly(7) == list(range(7))


def test_a_panel_has_the_mean_curve_of_each_class_over_those_channels(drawn: list[Any]) -> None:
    blocks, shown = panels(drawn, 120, 8)
    assert [panel.get_title() for panel in shown] == ["se/x[0]", "se/x[1]"]
    assert [panel.get_xlabel() for panel in shown] == ["channel (50 of 120)", "channel"]
    for block, panel in zip(blocks, shown, strict=True):
        chosen = evenly(block.channels)
        assert [line.get_label() for line in panel.lines] == ["a", "b", "c"]
        for line, of in zip(panel.lines, block.classes, strict=True):
            assert list(line.get_xdata()) == chosen
            assert list(line.get_ydata()) == [of.mean[channel] for channel in chosen]


def test_the_first_two_classes_have_a_band_of_one_deviation_on_either_side(drawn: list[Any]) -> None:
    blocks, shown = panels(drawn, 120, 8)
    for block, panel in zip(blocks, shown, strict=True):
        assert len(panel.collections) == 2
        for band, of, line in zip(panel.collections, block.classes[:2], panel.lines[:2], strict=True):
            assert band.get_facecolor()[0, :3] == pytest.approx(matplotlib.colors.to_rgb(line.get_color()))
            corners = band.get_paths()[0].vertices
            for channel in evenly(block.channels):
                edges = corners[corners[:, 0] == channel, 1]
                assert edges.min() == pytest.approx(of.mean[channel] - of.std[channel])
                assert edges.max() == pytest.approx(of.mean[channel] + of.std[channel])
