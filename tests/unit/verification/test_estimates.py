from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sesurgery.verification.estimates import PairedTimes, estimate_tax, summarise


def test_statistics_are_the_hand_computed_ones() -> None:
    stats = summarise(np.array([1.0, 2.0, 3.0, 4.0, 10.0]), batch=8)
    assert (stats.count, stats.min_seconds, stats.mean_seconds, stats.median_seconds) == (5, 1, 4, 3)
    assert stats.max_seconds == 10
    assert stats.std_seconds == pytest.approx(np.sqrt(50 / 4))
    assert stats.coefficient_of_variation == pytest.approx(np.sqrt(50 / 4) / 4)
    assert stats.samples_per_second == 2.0


def test_percentiles_interpolate() -> None:
    stats = summarise(np.arange(101.0) + 1, batch=1)
    assert (stats.p90_seconds, stats.p95_seconds, stats.p99_seconds) == pytest.approx((91, 96, 100))
    assert summarise(np.array([0.0, 1.0]) + 1, batch=1).p90_seconds == pytest.approx(1.9)


def test_a_lone_sample_has_no_deviation() -> None:
    assert summarise(np.array([2.0]), batch=1).std_seconds == 0.0


def placements(
    ratio: float,
    generator: np.random.Generator,
    *,
    number: int = 12,
    placed: float = 0.01,
    order: float = 0.0,
    noise: float = 0.01,
    processes: int = 1,
    between: float = 0.0,
    rounds: int = 5,
) -> list[PairedTimes]:
    """Times of two engines with planted effects: where each lies, who was loaded first, which process it is."""
    found = []
    for process in range(processes):
        shift = generator.normal(0, between)
        for index in range(number):
            ours, theirs = generator.normal(1, noise, (2, rounds, 4)) * np.exp(generator.normal(0, placed, (2, 1, 1)))
            first = index % 2 == 0
            late = np.exp(order if first else -order)
            found.append(PairedTimes(ratio * np.exp(shift) * late * ours, theirs, first, process))
    return found


def share(trials: int, holds: Callable[[np.random.Generator], bool]) -> float:
    return sum(holds(np.random.default_rng(seed)) for seed in range(trials)) / trials


def test_tax_of_a_constant_ratio_is_exact() -> None:
    baseline = np.tile([1.0, 2.0, 3.0], (10, 1))
    tax = estimate_tax([PairedTimes(1.25 * baseline, baseline, number % 2 == 0) for number in range(4)], 0.95)
    assert (tax.value, tax.low, tax.high) == pytest.approx((0.25, 0.25, 0.25))
    assert tax.per_placement == pytest.approx((0.25,) * 4)
    assert len(tax.per_round) == 40
    assert not tax.includes_zero


def test_tax_is_taken_within_rounds_so_a_slow_spell_does_not_move_it() -> None:
    pace = np.where(np.arange(15) < 8, 1.0, 1.8)[:, None]
    noise = np.random.default_rng(1).normal(1, 0.002, (4, 2, 15, 10))
    pairs = [PairedTimes(1.1 * pace * ours, pace * theirs, at % 2 == 0) for at, (ours, theirs) in enumerate(noise)]
    tax = estimate_tax(pairs, 0.95)
    assert tax.value == pytest.approx(0.1, abs=0.003)
    assert tax.high - tax.low < 0.01


def test_who_was_loaded_first_moves_neither_the_tax_nor_its_interval() -> None:
    steady, ordered = (
        estimate_tax(placements(1.05, np.random.default_rng(5), order=order), 0.95) for order in (0.0, 0.02)
    )
    assert (ordered.value, ordered.low, ordered.high) == pytest.approx((steady.value, steady.low, steady.high))
    assert ordered.load_order - steady.load_order == pytest.approx(0.02, abs=0.002)


@pytest.mark.parametrize(("placed", "order"), [(0.0, 0.0), (0.003, 0.013), (0.02, 0.013)])
def test_an_engine_against_its_copy_is_found_equal_as_often_as_the_interval_says(placed: float, order: float) -> None:
    def equal(random: np.random.Generator) -> bool:
        return estimate_tax(placements(1.0, random, placed=placed, order=order, rounds=1), 0.95).includes_zero

    found = share(1000, equal)
    # 0.95 within three standard deviations of 1000 trials.
    assert 0.93 <= found <= 0.97


def test_rounds_alone_would_call_equal_engines_different() -> None:
    """What the interval over rounds did: each placement taken for five independent numbers."""

    def over_rounds(random: np.random.Generator) -> bool:
        rounds = np.concatenate([pair.per_round for pair in placements(1.0, random, placed=0.02, noise=0.002)])
        return abs(rounds.mean()) < 2 * rounds.std(ddof=1) / len(rounds) ** 0.5

    assert share(100, over_rounds) < 0.8


def test_an_engine_that_is_slower_by_five_per_cent_is_found_slower() -> None:
    found = share(200, lambda random: estimate_tax(placements(1.05, random, placed=0.02, order=0.013), 0.95).low > 0)
    assert found >= 0.95


def test_the_interval_covers_what_differs_from_process_to_process() -> None:
    def covered(random: np.random.Generator) -> bool:
        pairs = placements(1.1, random, processes=5, number=4, between=0.02, rounds=1)
        tax = estimate_tax(pairs, 0.95)
        assert tax.processes == 5
        return tax.low <= 0.1 <= tax.high

    assert 0.93 <= share(1000, covered) <= 0.97


def test_one_process_does_not_know_what_another_one_would_say() -> None:
    def covered(random: np.random.Generator) -> bool:
        tax = estimate_tax(placements(1.1, random, placed=0.003, between=0.02), 0.95)
        return tax.low <= 0.1 <= tax.high

    assert share(100, covered) < 0.5


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    pairs = placements(1.0, np.random.default_rng(3))
    narrow, wide = (estimate_tax(pairs, level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


@pytest.mark.parametrize(("number", "first"), [(2, None), (6, True)], ids=["two", "one order"])
def test_too_few_placements_are_a_defect_not_a_result(number: int, first: bool | None) -> None:
    ones = np.ones((5, 2))
    with pytest.raises(ValueError, match=f"{number} placements"):
        estimate_tax([PairedTimes(ones, ones, first or at == 0) for at in range(number)], 0.95)
