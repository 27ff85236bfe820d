"""The table of a study, on simulated scores: how often it is wrong, and what it finds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sesurgery.studies.statistics import against, mean_interval, pairwise

STUDIES, CELLS, SEEDS = 200, 5, 5


def study(generator: np.random.Generator, differences: list[float], seeds: int = SEEDS) -> list[dict[int, float]]:
    """Scores of a plain network and of cells that differ from it: an effect of the seed, and noise of one unit."""
    seed = generator.normal(0, 1, seeds)
    return [dict(enumerate(0.9 + d + seed + generator.normal(0, 1, seeds))) for d in (0.0, *differences)]


def found(generator: np.random.Generator, differences: list[float]) -> list[bool]:
    (judged,) = against([study(generator, differences)])
    return [difference is not None and difference.significant for difference in judged]


def test_identical_cells_are_told_apart_in_at_most_one_study_of_twenty():
    generator = np.random.default_rng(0)
    assert sum(any(found(generator, [0.0] * (CELLS - 1))) for _ in range(STUDIES)) <= 0.05 * STUDIES


@pytest.mark.parametrize("others", [0, 3])
def test_two_standard_deviations_are_found_at_five_seeds(others):
    # Of the paired difference, which is what a study can see: two trainings' noise.
    generator = np.random.default_rng(1)
    planted = 2 * np.sqrt(2)
    hits = sum(found(generator, [planted] + [0.0] * others)[0] for _ in range(STUDIES))
    assert hits >= 0.8 * STUDIES


def test_two_cells_are_the_paired_t_test():
    plain, ours = study(np.random.default_rng(2), [0.7])
    ((judged,),) = against([[plain, ours]])
    reference = stats.ttest_rel(list(ours.values()), list(plain.values()))
    low, high = reference.confidence_interval(0.95)
    assert (judged.p, judged.low, judged.high) == pytest.approx((reference.pvalue, low, high))


def test_an_interval_leaves_out_zero_just_where_the_difference_is_significant():
    generator = np.random.default_rng(3)
    seen = set()
    for _ in range(100):
        for judged in against([study(generator, [3.0, 2.0, 1.0, 0.0])])[0]:
            assert judged.significant == (judged.low > 0 or judged.high < 0)
            seen.add(judged.significant)
    assert seen == {True, False}


def test_p_values_are_those_of_holm():
    scores = study(np.random.default_rng(4), [3.0, 1.0, 0.5])
    together = [judged.p for judged in against([scores])[0]]
    # A later group adds comparisons and noise of none: three identical cells.
    raw = sorted(pairwise(scores[0], [cell], [scores])[0].p for cell in scores[1:])
    expected = np.minimum(1, np.maximum.accumulate([3 * raw[0], 2 * raw[1], raw[2]]))
    assert sorted(together) == pytest.approx(list(expected))


def test_what_is_not_told_apart_says_how_many_more_seeds_would_do():
    generator = np.random.default_rng(5)
    judged = [against([study(generator, [1.0])])[0][0] for _ in range(20)]
    open_ = [each for each in judged if not each.significant]
    assert open_
    assert all(each.more_seeds is None or each.more_seeds >= 1 for each in open_)
    assert any(each.more_seeds for each in open_)
    assert all(each.more_seeds is None for each in judged if each.significant)


def test_one_seed_tells_nothing():
    ((judged,),) = against([[{0: 0.5}, {0: 0.9}]])
    assert (judged.p, judged.low, judged.significant, judged.more_seeds) == (None, None, False, None)
    assert mean_interval({0: 0.5}).low is None


def test_two_seeds_that_get_as_many_answers_right_do_not_make_a_mean_certain():
    other = {0: 0.9, 1: 0.91}
    same = mean_interval({0: 0.83, 1: 0.83}, among=[other])
    assert same.low < same.mean < same.high
    assert same.high - same.low < 2 * 0.13
    assert mean_interval(other, among=[{0: 0.83, 1: 0.83}]) == mean_interval(other)


def test_a_failed_trial_leaves_the_seeds_that_both_have():
    plain, ours = study(np.random.default_rng(6), [1.0])
    del ours[2]
    ((judged,),) = against([[plain, ours]])
    assert judged.seeds == 4
    assert judged.difference == pytest.approx(np.mean([ours[seed] - plain[seed] for seed in ours]))


def test_a_cell_without_any_result_is_compared_with_nothing():
    plain, ours = study(np.random.default_rng(7), [1.0])
    assert against([[plain, {}, ours]])[0][0] is None
    assert against([[plain, {}, ours]])[0][1] is not None


def test_pairs_that_happen_to_differ_by_as_many_answers_make_nothing_certain():
    # Two seeds, 180 samples: both times four more right answers.
    plain, ours = {0: 157 / 180, 1: 161 / 180}, {0: 161 / 180, 1: 165 / 180}
    found = against([[plain, ours]])[0][0]
    assert (found.significant, round(found.p, 2)) == (False, 0.18)
    assert found.low < 0 < found.high


def test_the_same_gain_from_many_seeds_is_told():
    plain = {seed: (150 + seed % 3) / 180 for seed in range(10)}
    ours = {seed: score + 4 / 180 for seed, score in plain.items()}
    assert against([[plain, ours]])[0][0].significant


def test_trainings_that_are_scored_by_several_engines_tell_about_their_noise_once():
    plain, ours = study(np.random.default_rng(8), [1.0], seeds=3)
    (alone,) = against([[plain, ours]])
    # An engine that answers as the model does: the same scores again.
    both = against([[plain, ours], [plain, ours]], trainings=["one", "one"])
    # Two comparisons, and no more certainty than of one.
    assert both[0][0].p == both[1][0].p == pytest.approx(min(1, 2 * alone[0].p))
    apart = against([[plain, ours], [plain, ours]])
    assert apart[0][0].p < both[0][0].p


def test_identical_cells_of_several_engines_are_told_apart_in_at_most_one_study_of_twenty():
    generator = np.random.default_rng(9)

    def deployed() -> list[list[dict[int, float]]]:
        trained = study(generator, [0.0], seeds=3)
        return [
            [{seed: score + generator.normal(0, 0.1) for seed, score in cell.items()} for cell in trained]
            for _ in range(3)
        ]

    found = [any(each[0].significant for each in against(deployed(), trainings=["one"] * 3)) for _ in range(STUDIES)]
    assert sum(found) <= 0.05 * STUDIES
