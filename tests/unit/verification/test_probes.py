"""Synthetic inputs: what they are, and how an engine is judged on them."""

import numpy as np
import pytest

from sesurgery.verification.probes import compare_probe, probes

IMAGES = np.random.default_rng(3).normal(2.0, 3.0, (5, 3, 9, 10)).astype(np.float32)


def test_probes_are_the_same_each_time_and_as_many_as_asked():
    first, second = dict(probes(IMAGES, 7)), dict(probes(IMAGES, 7))
    assert list(first) == ["noise", "extremes", "strong images", "faint images", "blank images"]
    for name, made in first.items():
        assert made.shape == (7, 3, 9, 10)
        assert made.dtype == np.float32
        assert np.array_equal(made, second[name])


def test_extremes_are_the_ends_of_each_channels_range():
    made = dict(probes(IMAGES))["extremes"]
    for channel in range(3):
        ends = {IMAGES[:, channel].min(), IMAGES[:, channel].max()}
        assert set(np.unique(made[:, channel])) == ends


def test_the_error_is_relative_to_the_models_largest_logit():
    trained = np.array([[8.0, -16.0], [1.0, 2.0]])
    found = compare_probe("noise", trained, trained + np.array([[0.0, 0.0], [2.0, 0.0]]), 1, 0.1)
    assert (found.max_relative, found.agreement, found.passed) == (0.125, 0.5, False)
    assert found.failure == "max_relative on noise: asked <= 0.1, found 0.125"
    assert compare_probe("noise", trained, trained, 1, None).passed


def test_the_share_of_equal_classes_has_its_interval():
    trained = np.array([[8.0, -16.0], [1.0, 2.0]])
    engine = np.array([[8.0, -16.0], [3.0, 2.0]])
    found = compare_probe("noise", trained, engine, 1, None)
    assert (found.same_class.hits, found.same_class.samples, found.same_class.value) == (1, 2, found.agreement)
    # Wilson's interval of 1 of 2.
    assert (found.same_class.low, found.same_class.high) == pytest.approx((0.0945, 0.9055), abs=1e-4)


def test_an_engine_that_overflows_where_the_model_does_not_fails():
    trained = np.array([[8.0, -16.0], [1.0, 2.0]])
    engine = trained.copy()
    engine[1, 0] = np.inf
    found = compare_probe("strong images", trained, engine, 1, 0.5)
    assert not found.passed
    assert "NaN or infinity in 1 of 2 samples" in found.failure


def test_nothing_is_asked_where_the_model_itself_is_not_finite():
    assert compare_probe("noise", np.array([[np.nan, 1.0]]), np.array([[0.0, 1.0]]), 1, 0.1) is None
