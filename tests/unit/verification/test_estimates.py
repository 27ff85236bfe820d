from __future__ import annotations

import numpy as np
import pytest

from sesurgery.verification import estimates
from sesurgery.verification.estimates import estimate_tax, summarise


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


def test_tax_of_a_constant_ratio_is_exact() -> None:
    baseline = np.tile([1.0, 2.0, 3.0], (10, 1))
    tax = estimate_tax(1.25 * baseline, baseline, 0.95, np.random.default_rng(0))
    assert (tax.value, tax.low, tax.high) == pytest.approx((0.25, 0.25, 0.25))
    assert not tax.includes_zero


def test_tax_is_taken_within_rounds_so_a_slow_spell_does_not_move_it() -> None:
    pace = np.where(np.arange(60) < 31, 1.0, 1.8)[:, None]
    noise = np.random.default_rng(1).normal(1, 0.002, (2, 60, 10))
    tax = estimate_tax(1.1 * pace * noise[0], pace * noise[1], 0.95, np.random.default_rng(0))
    assert tax.value == pytest.approx(0.1, abs=0.003)
    assert tax.high - tax.low < 0.003


def test_interval_covers_the_true_ratio_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "RESAMPLES", 1000)
    covered = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        candidate, baseline = 1.1 * generator.normal(1, 0.05, (40, 5)), generator.normal(1, 0.05, (40, 5))
        tax = estimate_tax(candidate, baseline, 0.9, generator)
        covered += tax.low <= 0.1 <= tax.high
    # 200 trials at 90 %: within four standard deviations of 180.
    assert 163 <= covered <= 197


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    samples = np.random.default_rng(3).normal(1, 0.05, (2, 40, 5))
    narrow, wide = (estimate_tax(*samples, level, np.random.default_rng(0)) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_the_same_generator_gives_the_same_interval() -> None:
    samples = np.random.default_rng(3).normal(1, 0.05, (2, 40, 5))
    one, two = (estimate_tax(*samples, 0.95, np.random.default_rng(7)) for _ in range(2))
    assert one == two


def test_resampling_in_pieces_draws_every_resample() -> None:
    medians = estimates._resampled_medians(np.ones(3000), np.random.default_rng(0))
    assert medians.shape == (estimates.RESAMPLES,)
