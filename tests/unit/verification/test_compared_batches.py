"""At which batch sizes an engine is compared."""

import json
from types import SimpleNamespace

import pytest

from sesurgery.backends.base import TensorInfo
from sesurgery.verification.batches import Limits, answered, chosen, impossible, limits, tuned_for, whole
from sesurgery.workspace.details import AskedEngine


@pytest.mark.parametrize(
    ("limits", "samples", "sizes"),
    [
        (Limits(1, 8, 64), 180, (1, 3, 8, 32, 64)),
        (Limits(1, 1, 1), 180, (1,)),
        (Limits(1, 1, 64), 20, (1, 3, 20)),
        (Limits(4, 8, 16), 180, (4, 5, 8, 16)),
        (Limits(2, 2, 2), 180, (2,)),
        (Limits(1, 8, 32, ranges=((1, 1), (8, 32))), 180, (1, 8, 9, 32)),
        (Limits(1, 8, 32, ranges=((1, 1), (8, 32))), 5, (1,)),
    ],
)
def test_first_odd_optimal_and_last_where_nobody_names_sizes(limits, samples, sizes):
    assert chosen((1, 32), False, limits, samples) == sizes
    assert not any(impossible(size, limits, samples) for size in sizes)


def test_named_sizes_stay_and_those_that_cannot_be_are_said():
    limits = Limits(1, 8, 64)
    assert chosen((2, 128), True, limits, 180) == (2, 128)
    assert impossible(128, limits, 180) == "the engine was built for batches from 1 to 64"
    assert impossible(200, Limits(1, 1, 256), 180) == "there are 180 held-out samples"
    gaps = Limits(1, 8, 32, ranges=((1, 1), (8, 32)))
    assert impossible(4, gaps, 180) == "the engine was built for batches from 1 to 1 or from 8 to 32"


def test_an_engine_of_one_size_is_compared_at_that_one():
    assert chosen((2, 128), True, Limits(7, 7, 7, fixed=True), 180) == (7,)


def test_with_too_few_samples_for_any_batch_that_is_what_is_said():
    (size,) = chosen((1, 32), False, Limits(8, 8, 64), 5)
    assert impossible(size, Limits(8, 8, 64), 5) == "there are 5 held-out samples"


def asked(shapes):
    said = {"backend": {"backend": "tensorrt"}, "batch": {"min": 1, "opt": 2, "max": 64}, "shapes": shapes}
    return AskedEngine.model_validate_json(json.dumps(said))


def of(shapes, sample=(), size="batch"):
    runner = SimpleNamespace(inputs=(TensorInfo("input", (size, 3, 8, 8), "float32"),))
    return limits(asked(shapes), runner, sample)


def test_the_range_of_a_profile_counts_and_that_of_batch_does_not():
    assert of(("input=4,8,16x3x8x8",)) == Limits(4, 8, 16, ranges=((4, 16),))
    assert of(()) == Limits(1, 2, 64)
    # The profile says nothing of this input.
    assert of(("other=4,8,16x3",)) == Limits(1, 2, 64, ranges=((1, 64),))
    assert of(("input=7x3x8x8",), size=7) == Limits(7, 7, 7, fixed=True)


def test_between_two_profiles_there_may_be_sizes_that_neither_takes():
    found = of(("input=8,16,32x3x8x8", "input=1x3x8x8"))
    assert found == Limits(1, 16, 32, ranges=((1, 1), (8, 32)))
    assert [size for size in range(1, 11) if found.takes(size)] == [1, 8, 9, 10]


def test_only_profiles_that_take_the_samples_count():
    shapes = ("input=1,8,32x3x8x8", "input=1,1,4x3x8,16,32x8,16,32", "input=1,2,2x3x16x16")
    assert of(shapes, (3, 16, 16)) == Limits(1, 1, 4, ranges=((1, 2), (1, 4)))
    # Left out, it is the one that the first is tuned for, which the second takes too.
    assert of(shapes) == of(shapes, (3, 8, 8)) == Limits(1, 8, 32, ranges=((1, 4), (1, 32)))
    # The runner has the words for samples that no profile takes.
    assert of(shapes, (3, 99, 99)).largest == 32


def test_an_engine_is_tuned_for_the_optimum_of_its_first_profile():
    assert tuned_for(asked(("input=4,8,16x3x8x8", "input=1x3x8x8"))) == 8
    assert tuned_for(asked(())) == 2


def test_samples_come_in_whole_batches():
    assert (whole(8, 3), whole(8, 1), whole(8, 64)) == (9, 8, 64)


@pytest.mark.parametrize(
    ("limits", "batch", "count"),
    [
        (Limits(1, 8, 64), 8, 181),
        (Limits(4, 8, 16), 8, 181),
        (Limits(4, 8, 16), 9, 180),
        (Limits(7, 7, 7, fixed=True), 7, 175),
        (Limits(1, 8, 32, ranges=((1, 1), (8, 32))), 16, 176),
    ],
)
def test_a_rest_that_the_engine_does_not_take_is_not_answered(limits, batch, count):
    assert answered(181, batch, limits) == count
