"""What an engine answers beside the model: intervals of every share, top-5, KL, McNemar."""

import numpy as np
import pytest

from sesurgery.spec.parity import Tolerance
from sesurgery.verification.parity import compare
from sesurgery.verification.proportions import wilson

TRAINED = np.eye(8)[[0, 1, 2, 3, 4, 5]] * 4.0
LABELS = np.array([0, 1, 2, 3, 4, 0])


def answers(candidate, labels=LABELS, **asked):
    return compare(TRAINED, candidate, labels, Tolerance(**(asked or {"max_abs": 100.0})))


def swapped(row, first, second):
    other = TRAINED.copy()
    other[row, [first, second]] = other[row, [second, first]]
    return other


def test_every_share_has_its_interval():
    found = answers(swapped(0, 0, 7)).answers
    assert (found.agreement.hits, found.agreement.samples) == (5, 6)
    assert (found.agreement.low, found.agreement.high) == wilson(5, 6)
    assert (found.reference_top1.hits, found.candidate_top1.hits) == (5, 4)
    assert found.candidate_top1.low < found.candidate_top1.value < found.candidate_top1.high


def test_top5_counts_the_right_class_among_five_and_ties_go_to_the_first():
    found = answers(swapped(0, 0, 7)).answers
    # In row 0 the engine puts class 7 first; the zeros that follow tie, and classes 0 to 3 are taken of them.
    assert (found.reference_top5.hits, found.candidate_top5.hits) == (6, 6)
    pushed = TRAINED.copy()
    pushed[0] = [0, 9, 9, 9, 9, 9, 0, 0]
    assert answers(pushed, max_top5_drop=0.0).failures == ("max_top5_drop: asked <= 0, found 0.166667",)


def test_the_overlap_of_the_top_5_has_an_interval_that_whole_samples_would_have():
    found = answers(swapped(0, 0, 7)).answers
    # In row 0 the engine's five are 7, 0, 1, 2, 3 in the place of 0, 1, 2, 3, 4.
    assert found.top5_overlap == pytest.approx((5 + 4 / 5) / 6)
    low, high = found.top5_overlap_interval
    assert wilson(5, 6)[0] < low < found.top5_overlap < high < 1
    assert answers(TRAINED).answers.top5_overlap_interval == wilson(6, 6)


def test_mcnemar_counts_who_is_right_alone():
    test = answers(swapped(0, 0, 7)).answers.mcnemar
    assert (test.first_only, test.second_only, test.p) == (1, 0, 1.0)


def test_kl_is_the_hand_computed_one_and_none_of_equal_logits():
    assert answers(TRAINED).max_kl == 0
    moved = TRAINED.copy()
    moved[0] = [3.0, *[0.0] * 7]
    before, after = (np.exp(row) / np.exp(row).sum() for row in (TRAINED[0], moved[0]))
    found = answers(moved)
    assert found.max_kl == pytest.approx(float((before * np.log(before / after)).sum()))
    assert found.mean_kl == pytest.approx(found.max_kl / 6)


def test_the_99th_percentile_is_of_the_samples_and_infinite_where_one_of_few_is():
    assert answers(swapped(0, 0, 7)).p99_abs == 4.0
    poisoned = TRAINED.copy()
    poisoned[1, 1] = np.nan
    found = answers(poisoned)
    assert (found.p99_abs, found.max_kl) == (np.inf, np.inf)
    assert found.answers.candidate_top5.hits == 5


def test_equal_logits_far_from_zero_have_a_finite_kl():
    large = TRAINED * 1e4
    assert compare(large, large, LABELS, Tolerance(max_kl=1e-9)).passed
