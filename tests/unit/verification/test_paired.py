"""The gain of one network over another on the same samples, against figures computed by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from sesurgery.verification.paired import gain


def answers(both: int, ours: int, theirs: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Right answers of one training each, by who is right."""
    left = np.repeat([True, True, False, False], [both, ours, theirs, neither])
    right = np.repeat([True, False, True, False], [both, ours, theirs, neither])
    return left[None], right[None]


def test_the_interval_of_one_training_is_that_of_bonett_and_price() -> None:
    found = gain(*answers(80, 12, 4, 4))
    # (12 + 1) / 102 and (4 + 1) / 102 alone right: 0.07843 +- 1.95996 * sqrt((0.17647 - 0.07843^2) / 102).
    assert found.value == pytest.approx(0.08)
    assert (found.low, found.high) == pytest.approx((-0.001659, 0.158522), abs=1e-5)
    assert found.includes_zero


def test_networks_that_agree_everywhere_leave_room_for_doubt() -> None:
    found = gain(*answers(100, 0, 0, 0))
    assert found.value == 0
    assert found.low == -found.high < 0


def test_the_other_way_round_is_the_same_with_the_other_sign() -> None:
    ours, theirs = answers(60, 20, 5, 15)
    one, other = gain(ours, theirs), gain(theirs, ours)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


def test_the_same_training_told_twice_is_no_more_certain() -> None:
    ours, theirs = answers(80, 12, 4, 4)
    once, twice = gain(ours, theirs), gain(np.tile(ours, (2, 1)), np.tile(theirs, (2, 1)))
    assert (once.low, once.high, once.samples) == (twice.low, twice.high, twice.samples)
    assert (once.trainings, twice.trainings) == (1, 2)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        luck = generator.random((3, 360))
        # Both right on 95 %, ours alone on 3 %, theirs alone on 1 %; trainings that share nothing.
        ours, theirs = luck < 0.98, (luck < 0.95) | (luck > 0.99)
        found = gain(ours, theirs)
        held += found.low <= 0.02 <= found.high
    # 95 % of 400 are 380; three standard deviations below are 367.
    assert held >= 367


@pytest.mark.parametrize("shapes", [((10,), (10,)), ((1, 10), (2, 10)), ((1, 0), (1, 0))])
def test_answers_that_are_no_pairs_are_refused(shapes) -> None:
    with pytest.raises(ValueError, match="trainings, samples"):
        gain(*(np.ones(shape, bool) for shape in shapes))
