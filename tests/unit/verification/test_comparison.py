from __future__ import annotations

import numpy as np
import pytest

from sesurgery.training.history import Epoch, from_csv, to_csv
from sesurgery.verification.comparison import compare, epochs_to
from sesurgery.verification.paired import mcnemar


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    ours = [True] * both + [True] * first + [False] * second + [False] * neither
    theirs = [True] * both + [False] * first + [True] * second + [False] * neither
    return np.array(ours), np.array(theirs)


def trained(*top1: float) -> tuple[Epoch, ...]:
    return tuple(Epoch(number, 1.5, share, 1.25, 0.1, 2.0) for number, share in enumerate(top1, 1))


@pytest.mark.parametrize(
    ("first", "second", "p"),
    # Two-sided binomial tails by hand: 2 (1 + 6) / 2^6, 2 / 2^10, and no sample that they differ on.
    [(5, 1, 14 / 64), (0, 10, 2 / 1024), (3, 3, 1), (0, 0, 1)],
)
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int, p: float) -> None:
    found = mcnemar(*answers(20, first, second, 3))
    assert (found.first_only, found.second_only) == (first, second)
    assert found.p == pytest.approx(p)


def test_mcnemar_asks_for_the_same_samples() -> None:
    with pytest.raises(ValueError, match="expected two arrays"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


@pytest.mark.parametrize(
    ("first", "second", "verdict"), [(20, 2, "better"), (2, 20, "worse"), (5, 4, "not told apart")]
)
def test_the_verdict_is_of_the_first(first: int, second: int, verdict: str) -> None:
    found = compare(*answers(50, first, second, 10), (trained(0.5), trained(0.5)))
    assert found.verdict == verdict
    assert found.difference.value == pytest.approx((first - second) / found.samples)


def test_epochs_are_counted_to_the_highest_top1_that_both_reached() -> None:
    found = compare(*answers(5, 1, 1, 1), (trained(0.5, 0.8, 0.9), trained(0.4, 0.6, 0.7, 0.8)))
    assert (found.accuracy, found.epochs_to) == (0.8, (2, 4))


def test_an_accuracy_that_was_never_reached_has_no_epoch() -> None:
    assert epochs_to(0.95, trained(0.5, 0.9)) is None
    untrained = (trained(0.5), ())
    assert compare(*answers(5, 1, 1, 1), untrained, 0.4).epochs_to == (1, None)
    found = compare(*answers(5, 1, 1, 1), untrained)
    assert (found.accuracy, found.epochs_to) == (None, (None, None))


def test_a_table_of_epochs_is_read_as_it_was_written() -> None:
    assert from_csv(to_csv(trained(0.25, 0.5))) == trained(0.25, 0.5)
    with pytest.raises(KeyError):
        from_csv("epoch,train_loss\n1,0.5\n")
    with pytest.raises(ValueError, match="held_out_top1 of epoch 1 is 1e\\+308"):
        from_csv(to_csv(trained(1e308)))
