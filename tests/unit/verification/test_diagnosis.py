"""What the answers of an engine alone tell about its fault."""

import numpy as np
import pytest

from sesurgery.verification.diagnosis import of_answers

RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.normal(0.3, 1.0, (12, 3, 6, 6)).astype(np.float32)
WEIGHTS = RANDOM.normal(size=(108, 10))


def model(images):
    return np.tanh(images.reshape(len(images), -1) @ WEIGHTS / 6)


def told(engine, passed=None):
    return of_answers(model, IMAGES, model(IMAGES), {1: engine}, passed or {1: False})


def test_logits_in_another_order_are_labels():
    order = [0, 2, 1, 3, 4, 5, 6, 7, 9, 8]
    found = told(model(IMAGES)[:, order] + RANDOM.normal(0, 0.01, (12, 10)))
    assert found.kind == "labels"
    assert "4 of 10 classes: 1 for 2, 2 for 1" in found.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda images: images[:, ::-1], "with the channels in the order 2, 1, 0"),
        (lambda images: images * 255, "times 255"),
        (lambda images: images.swapaxes(2, 3), "with height and width swapped"),
        (lambda images: images[..., ::-1], "mirrored"),
    ],
)
def test_answers_to_changed_images_are_preprocessing(change, words):
    found = told(model(change(IMAGES)))
    assert (found.kind, words in found.text) == ("preprocessing", True)


def test_right_at_one_batch_and_wrong_at_another_is_the_batch():
    found = told(model(IMAGES), {1: True, 2: False, 32: False})
    assert str(found) == "batch: right at batch 1, wrong at 2, 32"


def test_what_is_not_finite_is_said_first():
    engine = model(IMAGES)
    engine[3, 0] = np.nan
    assert told(engine).text == "NaN or infinity in 1 of the 12 samples looked at"


@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_a_difference_within_the_network_is_none_of_these(noise):
    assert told(model(IMAGES) + RANDOM.normal(0, noise, (12, 10))) is None


def test_answers_that_do_not_depend_on_the_image_are_not_taken_for_a_preprocessing():
    """All images over 255 look alike to the model too."""
    assert told(model(IMAGES / 255) * 1.0).kind == "preprocessing"
    nearly = np.tile(model(IMAGES / 255).mean(0), (12, 1)) + RANDOM.normal(0, 1e-4, (12, 10))
    assert told(nearly) is None
