from __future__ import annotations

import math

import pytest
import torch

from sesurgery.reports.text.scores import to_text
from sesurgery.verification.proportions import wilson
from sesurgery.verification.scores import ClassScore, calibration_error, scores


def test_top_k_counts_the_label_among_the_k_best() -> None:
    # The label is 0; it comes first, second, third, fourth and sixth.
    rows = [[9, 1, 2, 3, 4, 5], [8, 9, 1, 2, 3, 4], [7, 8, 9, 1, 2, 3], [6, 7, 8, 9, 1, 2], [0, 1, 2, 3, 4, 5]]
    found = scores(torch.tensor(rows).float(), torch.zeros(5, dtype=torch.long), "abcdef")
    assert (found.correct, found.top1, found.top3, found.top5) == (
        1,
        0.2,
        pytest.approx(0.6),
        pytest.approx(0.8),
    )


def test_two_classes_have_no_third() -> None:
    found = scores(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1]), ("a", "b"))
    assert (found.top1, found.top3, found.top5) == (0.5, 1, 1)


def test_each_class_has_its_share_and_one_without_samples_has_none() -> None:
    logits = torch.tensor([[3.0, 0, 0], [3.0, 0, 0], [0, 3.0, 0]])
    found = scores(logits, torch.tensor([0, 1, 1]), ("a", "b", "c"))
    assert found.classes == (ClassScore("a", 1, 1.0), ClassScore("b", 2, 0.5), ClassScore("c", 0, None))
    assert to_text({"runs/x": found}).splitlines()[-1] == "worst classes: b (50.00% of 2)"


def test_the_calibration_error_is_the_gap_between_confidence_and_right_answers() -> None:
    logits = torch.log(torch.tensor([[0.9, 0.1]] * 10 + [[0.62, 0.38]] * 10))
    right = torch.tensor([True] * 9 + [False] + [True] * 10)
    # Ten answers at 0.9, of which 0.9 are right; ten at 0.62, all right.
    assert calibration_error(logits, right) == pytest.approx((0 + 0.38) / 2, abs=1e-6)


def test_what_is_no_number_stays_none() -> None:
    found = scores(torch.full((2, 3), float("nan")), torch.tensor([0, 1]), "abc")
    assert math.isnan(found.ece)
    assert math.isnan(found.loss)


@pytest.mark.parametrize(
    ("hits", "samples", "interval"),
    # The textbook case (Newcombe 1998, table I, method 3), and both ends.
    [(81, 263, (0.2553, 0.3662)), (0, 20, (0, 0.1611)), (20, 20, (0.8389, 1))],
)
def test_wilsons_interval(hits: int, samples: int, interval: tuple[float, float]) -> None:
    assert wilson(hits, samples) == pytest.approx(interval, abs=1e-4)


def test_wilsons_interval_asks_for_samples() -> None:
    with pytest.raises(ValueError, match="found 0 of 0"):
        wilson(0, 0)
