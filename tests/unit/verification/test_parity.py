from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from sesurgery.backends.base import Array, Runner, TensorInfo
from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec.parity import Tolerance
from sesurgery.verification.batches import Limits
from sesurgery.verification.parity import compare
from sesurgery.verification.predicting import predict, predict_whole

REFERENCE = np.array([[4.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 2.0, 2.5], [6.0, 0.0, 8.0]])
LABELS = np.array([0, 1, 2, 0])
ANY = Tolerance(max_abs=100.0)


def moved(row: int, column: int, by: float) -> NDArray[np.float64]:
    candidate = REFERENCE.copy()
    candidate[row, column] += by
    return candidate


def test_equal_logits_pass_every_criterion() -> None:
    tolerance = Tolerance(max_abs=1e-9, mean_abs=1e-9, min_cosine=1.0, min_agreement=1.0, max_top1_drop=0.0)
    report = compare(REFERENCE, REFERENCE, LABELS, tolerance)
    assert report.passed
    assert (report.max_abs, report.mean_abs, report.min_cosine, report.agreement) == (0, 0, 1, 1)
    assert report.reference_top1 == report.candidate_top1 == 0.75


def test_errors_and_agreement_are_the_hand_computed_ones() -> None:
    report = compare(REFERENCE, moved(2, 1, 1.0), LABELS, ANY)
    assert report.max_abs == 1.0
    assert report.mean_abs == pytest.approx(1 / 12)
    assert report.worst_sample == 2
    assert report.disagreeing == (2,)
    assert report.agreement == 0.75
    assert (report.reference_top1, report.candidate_top1) == (0.75, 0.5)
    assert report.sample_errors == (0, 0, 1, 0)
    assert report.sample_margins == (3, 2, 0.5, 2)


def test_cosine_is_the_hand_computed_one() -> None:
    report = compare(np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]]), np.array([1]), ANY)
    assert report.min_cosine == report.mean_cosine == pytest.approx(24 / 25)


def test_cosine_of_a_vanished_output_is_zero_and_of_two_zero_vectors_one() -> None:
    zeros = np.zeros((2, 2))
    report = compare(np.array([[3.0, 4.0], [0.0, 0.0]]), zeros, np.array([1, 0]), ANY)
    assert (report.min_cosine, report.mean_cosine) == (0.0, 0.5)


def test_every_failed_criterion_is_named_with_what_was_asked_and_found() -> None:
    tolerance = Tolerance(max_abs=0.5, mean_abs=1.0, min_agreement=0.9, max_top1_drop=0.1)
    assert compare(REFERENCE, moved(2, 1, 1.0), LABELS, tolerance).failures == (
        "max_abs: asked <= 0.5, found 1",
        "min_agreement: asked >= 0.9, found 0.75",
        "max_top1_drop: asked <= 0.1, found 0.25",
    )


def test_a_miss_by_a_hair_shows_all_its_digits() -> None:
    failures = compare(REFERENCE, moved(0, 1, 1e-4), LABELS, Tolerance(min_cosine=1.0)).failures
    assert failures[0].startswith("min_cosine: asked >= 1.0, found 0.99999999")


def test_only_what_is_asked_is_judged() -> None:
    assert compare(REFERENCE, moved(2, 1, 1.0), LABELS, Tolerance(max_top1_drop=0.25)).passed


def test_an_engine_that_is_right_more_often_has_no_top1_drop() -> None:
    report = compare(REFERENCE, moved(3, 0, 5.0), LABELS, Tolerance(max_top1_drop=0.0))
    assert report.candidate_top1 == 1.0
    assert report.passed


def test_a_drop_of_exactly_the_bound_passes() -> None:
    reference = np.tile([1.0, 0.0], (100, 1))
    candidate = reference.copy()
    candidate[0] = [0.0, 1.0]
    assert compare(reference, candidate, np.zeros(100, int), Tolerance(max_top1_drop=0.01, min_agreement=0.99)).passed


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_candidate_that_is_not_finite_always_fails(poison: float) -> None:
    # The poisoned logit is the model's own first class, so that a naive argmax would agree.
    report = compare(REFERENCE, moved(1, 1, poison), LABELS, Tolerance(max_top1_drop=1.0))
    assert not report.passed
    assert report.failures[0].startswith("finite logits")
    assert "1 of 4 (sample 1 for one)" in report.failures[0]
    assert report.disagreeing == (1,)
    assert report.max_abs == np.inf
    assert np.isnan(report.min_cosine)


def test_nan_never_meets_a_cosine_bound() -> None:
    report = compare(REFERENCE, moved(1, 1, np.nan), LABELS, Tolerance(min_cosine=0.0))
    assert len(report.failures) == 2


def test_half_precision_logits_are_compared_in_double() -> None:
    reference = np.array([[60000.0, -60000.0]], np.float32)
    assert compare(reference, reference.astype(np.float16), np.array([0]), ANY).max_abs < 100


@pytest.mark.parametrize(
    ("reference", "candidate", "labels", "code", "words"),
    [
        (REFERENCE, REFERENCE[:3], LABELS, "SE606", "[4, 3], the engine [3, 3]"),
        (REFERENCE[0], REFERENCE[0], LABELS, "SE606", "[N, classes]"),
        (REFERENCE, REFERENCE, LABELS[:3], "SE501", "4 labels from 0 to 2"),
        (REFERENCE, REFERENCE, LABELS + 1, "SE501", "values from 1 to 3"),
        (REFERENCE, REFERENCE, LABELS[:0], "SE501", "found none"),
        (REFERENCE[:0], REFERENCE[:0], LABELS[:0], "SE501", "no samples"),
        (moved(0, 0, np.nan), REFERENCE, LABELS, "SE606", "the trained model itself"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    reference: Array, candidate: Array, labels: Array, code: str, words: str
) -> None:
    with pytest.raises(SesurgeryError) as caught:
        compare(reference, candidate, labels, ANY)
    assert caught.value.diagnostics[0].code == code
    assert words in str(caught.value)


def test_a_tolerance_that_asks_for_nothing_is_refused() -> None:
    with pytest.raises(SesurgeryError, match="max_abs, mean_abs") as caught:
        compare(REFERENCE, REFERENCE, LABELS, Tolerance())
    assert caught.value.diagnostics[0].code == "SE102"


class Doubler(Runner):
    """Gives the first two pixels times two, always in the same buffer, as engines with bound outputs do."""

    inputs = (TensorInfo("image", ("batch", 1, 1, 2), "float32"),)
    outputs: tuple[TensorInfo, ...] = (TensorInfo("logits", ("batch", 2), "float32"),)

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.buffer = np.zeros((64, 2), np.float32)

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        image = feeds["image"]
        self.batches.append(len(image))
        self.buffer[: len(image)] = 2 * image.reshape(len(image), 2).astype(np.float32)
        return {"logits": self.buffer[: len(image)]}

    def time(self, feeds: Mapping[str, Array], repeats: int) -> NDArray[np.float64]:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_predict_runs_the_short_last_batch_as_it_is() -> None:
    images = np.arange(14, dtype=np.float32).reshape(7, 1, 1, 2)
    runner = Doubler()
    assert np.array_equal(predict(runner, images, 3), 2 * images.reshape(7, 2))
    assert runner.batches == [3, 3, 1]


@pytest.mark.parametrize(("smallest", "answered"), [(1, 7), (3, 6)])
def test_a_rest_that_makes_no_batch_is_left_out(smallest: int, answered: int) -> None:
    images = np.arange(14, dtype=np.float32).reshape(7, 1, 1, 2)
    runner = Doubler()
    found = predict_whole(runner, images, Limits(smallest, 3, 3))
    assert np.array_equal(found, 2 * images[:answered].reshape(answered, 2))


def test_predict_refuses_an_engine_with_two_outputs() -> None:
    runner = Doubler()
    runner.outputs = runner.outputs * 2
    with pytest.raises(SesurgeryError, match="1 inputs and 2 outputs"):
        predict(runner, np.zeros((1, 1, 1, 2), np.float32), 1)


def test_predict_refuses_an_output_of_another_number_of_rows() -> None:
    class Static(Doubler):
        def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            return {"logits": self.buffer[:4]}

    with pytest.raises(SesurgeryError, match="shape 4x2 for 2 samples"):
        predict(Static(), np.zeros((2, 1, 1, 2), np.float32), 2)
