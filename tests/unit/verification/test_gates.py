"""Gate statistics: planted dead, saturated and constant gates are counted, and classes that differ are seen."""

from __future__ import annotations

import numpy as np
import pytest

from sesurgery.verification.gates import measure

NAMES = {0: "a", 1: "b"}
LABELS = np.repeat([0, 1], 40)


def varied(draw: np.random.Generator, channels: int) -> np.ndarray:
    return draw.uniform(0.2, 0.8, (len(LABELS), channels))


@pytest.mark.parametrize("seed", range(20))
def test_planted_gates_are_found(seed):
    draw = np.random.default_rng(seed)
    dead, saturated, constant = draw.integers(1, 6, 3)
    values = np.concatenate(
        [
            varied(draw, 10),
            draw.uniform(0, 0.049, (len(LABELS), dead)),
            draw.uniform(0.951, 1, (len(LABELS), saturated)),
            draw.uniform(0.1, 0.9, constant) + draw.uniform(-0.004, 0.004, (len(LABELS), constant)),
        ],
        axis=1,
    )
    found = measure("se/x[0]", values[:, draw.permutation(values.shape[1])], LABELS, NAMES, 1.0)
    assert (found.dead, found.saturated, found.constant) == (dead, saturated, constant)
    assert found.advice == "keep"


def test_the_range_of_an_identity_start_is_twice_as_wide():
    values = np.full((len(LABELS), 4), 0.98)
    assert measure("k", values, LABELS, NAMES, 1.0).saturated == 4
    assert measure("k", values, LABELS, NAMES, 2.0).saturated == 0
    assert measure("k", values, LABELS, NAMES, None).saturated is None


def test_gates_of_one_value_a_class_lie_between_classes_and_noise_does_not():
    draw = np.random.default_rng(0)
    by_class = np.where(LABELS[:, None] == 0, 0.3, 0.6) * np.ones(8)
    assert measure("k", by_class, LABELS, NAMES, 1.0).between_class == pytest.approx(1)
    share = measure("k", varied(draw, 200), LABELS, NAMES, 1.0).between_class
    assert share == pytest.approx(1 / (len(LABELS) - 1), abs=0.005)
    assert measure("k", np.ones((80, 8)), LABELS, NAMES, 1.0).between_class == 0


def test_the_curves_are_means_and_deviations_of_each_class():
    draw = np.random.default_rng(0)
    values = varied(draw, 3)
    first, second = measure("k", values, LABELS, NAMES, 1.0).classes
    assert (first.name, first.samples, second.name) == ("a", 40, "b")
    assert first.mean == pytest.approx(values[:40].mean(0))
    assert second.std == pytest.approx(values[40:].std(0))


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        (np.full((80, 4), 0.7), "fold"),
        (np.random.default_rng(0).uniform(0, 0.04, (80, 4)), "look: every channel"),
        (np.random.default_rng(0).uniform(0, [0.04, 0.04, 0.9, 0.9], (80, 4)), "look: half"),
        (np.random.default_rng(0).uniform(0, 1, (80, 4)), "keep"),
    ],
)
def test_the_advice_follows(values, advice):
    assert measure("k", values, LABELS, NAMES, 1.0).advice.startswith(advice)


def test_samples_that_do_not_show_a_gate_change_nothing():
    draw = np.random.default_rng(0)
    values = varied(draw, 6)
    values[:, 0] = 0.5
    hidden = values.copy()
    hidden[::3, 0] = np.nan
    expected, found = (measure("k", each, LABELS, NAMES, 1.0) for each in (values, hidden))
    assert (found.constant, found.saturated, found.dead, found.unseen) == (1, 0, 0, 0)
    assert found.std == pytest.approx(expected.std)
    assert found.between_class == pytest.approx(expected.between_class)


def test_a_channel_that_is_never_seen_counts_as_nothing_else():
    values = varied(np.random.default_rng(0), 4)
    values[:, 1] = np.nan
    found = measure("k", values, LABELS, NAMES, 1.0)
    assert (found.unseen, found.dead, found.saturated, found.constant) == (1, 0, 0, 0)
    assert np.isnan(found.classes[0].mean[1])
