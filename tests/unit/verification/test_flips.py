"""The samples whose answer changed, as pictures."""

import base64
import io

import numpy as np
from PIL import Image

from sesurgery.verification.flips import MOST, flipped_samples, picture


def opened(png):
    return Image.open(io.BytesIO(base64.b64decode(png)))


def test_the_samples_of_which_the_model_was_surest_come_first_with_both_answers():
    reference = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    candidate = np.array([[0.0, 1.0], [0.0, 1.0], [np.nan, 2.0]])
    images = np.arange(3 * 3 * 4 * 4, dtype=np.float32).reshape(3, 3, 4, 4)
    found = list(flipped_samples(images, reference, candidate, np.array([0, 1, 1]), ("cat", "dog"), (0, 1, 2)))
    assert [each.index for each in found] == [1, 2, 0]
    assert [(each.label, each.expected, each.answer) for each in found] == [
        ("dog", "cat", "dog"),
        ("dog", "dog", None),
        ("cat", "cat", "dog"),
    ]
    assert found[0].expected_share > found[2].expected_share > 0.7
    assert opened(found[0].png).size == (4, 4)


def test_no_more_pictures_are_kept_than_a_page_can_bear():
    logits = np.tile([1.0, 0.0], (100, 1))
    images = np.zeros((100, 1, 2, 2), np.float32)
    found = list(flipped_samples(images, logits, logits, np.zeros(100, int), ("a",), range(100)))
    assert len(found) == MOST


def test_pictures_are_grey_or_coloured_and_thinned_out():
    assert opened(picture(np.zeros((1, 8, 6)))).mode == "L"
    large = opened(picture(np.random.default_rng(0).normal(size=(5, 224, 200))))
    assert (large.mode, large.size) == ("RGB", (50, 56))
