"""Two recipes over several seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sesurgery.reports.text.comparison import seeds_to_text
from sesurgery.studies.over_seeds import over_seeds
from sesurgery.verification.comparison import Comparison, compare

SAMPLES = 1000


def pair(first: float, second: float) -> Comparison:
    """Two trainings with these shares of right answers."""
    ours, theirs = (np.arange(SAMPLES) < round(share * SAMPLES) for share in (first, second))
    return compare(ours, theirs, ((), ()))


FIRST, SECOND = [0.90, 0.92, 0.91, 0.93, 0.92], [0.88, 0.89, 0.89, 0.90, 0.90]


def test_the_difference_is_the_paired_t_test_over_seeds():
    found = over_seeds({seed: pair(*both) for seed, both in enumerate(zip(FIRST, SECOND, strict=True))})
    reference = stats.ttest_rel(FIRST, SECOND)
    low, high = reference.confidence_interval(0.95)
    judged = found.difference
    assert (judged.difference, judged.p, judged.low, judged.high) == pytest.approx(
        (np.mean(FIRST) - np.mean(SECOND), reference.pvalue, low, high)
    )
    assert (found.verdict, found.first_mean.mean) == ("better", pytest.approx(np.mean(FIRST)))
    turned = over_seeds({seed: pair(*both) for seed, both in enumerate(zip(SECOND, FIRST, strict=True))})
    assert turned.verdict == "worse"


def test_seeds_that_disagree_tell_nothing_though_each_pair_does():
    found = over_seeds({0: pair(0.95, 0.90), 7: pair(0.90, 0.95), 3: pair(0.95, 0.93)})
    assert [each.verdict for each in found.pairs] == ["better", "better", "worse"]
    assert found.seeds == (0, 3, 7)
    assert found.verdict == "not told apart"
    text = seeds_to_text(found).splitlines()
    assert [line.split()[0] for line in text[:5]] == ["seed", "0", "3", "7", "mean"]
    assert "more seeds would tell" in text[-1]


def test_one_seed_has_no_interval():
    found = over_seeds({0: pair(0.95, 0.90)})
    assert (found.difference.low, found.verdict) == (None, "not told apart")
    assert "one seed has no interval" in seeds_to_text(found)
