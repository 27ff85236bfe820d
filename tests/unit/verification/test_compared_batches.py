"""At which batch sizes an engine is compared."""

import pytest

from sesurgery.verification.batches import Limits, chosen, impossible, whole


@pytest.mark.parametrize(
    ("limits", "samples", "sizes"),
    [
        (Limits(1, 8, 64), 180, (1, 3, 8, 32, 64)),
        (Limits(1, 1, 1), 180, (1,)),
        (Limits(1, 1, 64), 20, (1, 3, 20)),
        (Limits(4, 8, 16), 180, (4, 5, 8, 16)),
        (Limits(2, 2, 2), 180, (2,)),
        (Limits(1, 1, None), 180, (1, 3, 32, 180)),
    ],
)
def test_first_odd_optimal_and_last_where_nobody_names_sizes(limits, samples, sizes):
    assert chosen((1, 32), False, limits, samples) == sizes
    assert not any(impossible(size, limits, samples) for size in sizes)


def test_named_sizes_stay_and_those_that_cannot_be_are_said():
    limits = Limits(1, 8, 64)
    assert chosen((2, 128), True, limits, 180) == (2, 128)
    assert impossible(128, limits, 180) == "the engine was built for batches from 1 to 64"
    assert impossible(200, Limits(1, 1, None), 180) == "there are 180 held-out samples"


def test_an_engine_of_one_size_is_compared_at_that_one():
    assert chosen((2, 128), True, Limits(7, 7, 7, fixed=True), 180) == (7,)


def test_samples_come_in_whole_batches():
    assert (whole(8, 3), whole(8, 1), whole(8, 64)) == (9, 8, 64)
