"""From an image file to a network's input: sizes, colours, normalisation, and agreement with the data set itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from sesurgery.training.data import DATASETS
from sesurgery.training.data.digits import Digits
from sesurgery.training.preprocessing import Preprocessing

PHOTO = Preprocessing("RGB", 3, 32, (24, 28), 1 / 255, (0.5, 0.25, 0.0), (0.5, 0.5, 1.0))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 20, 12), (1, 5, 5)], ids=str)
def test_a_digit_from_a_file_is_the_sample_of_the_data_set(shape: tuple[int, int, int]) -> None:
    data = Digits()
    raw, _, train, _ = data.raw(shape)
    images = torch.nn.functional.interpolate(raw, shape[1:], mode="bilinear", antialias=True)
    samples = (images - images[train].mean()) / images[train].std()
    prepare = data.preprocessing(shape)
    # Half a level of grey, in units of the deviation.
    allowed = 0.51 * 16 / 255 / prepare.std[0]
    for index in range(10):
        image = Image.fromarray(np.round(load_digits().images[index] * 255 / 16).astype(np.uint8))
        found = prepare(image)
        assert found.shape == shape
        assert found.dtype == np.float32
        assert np.abs(found - samples[index].numpy()).max() < allowed


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (40, 40), (33, 32)], ids=str)
def test_the_shorter_side_is_brought_to_size_and_the_middle_cut_out(size: tuple[int, int]) -> None:
    width, height = size
    image = Image.new("RGB", size)
    # A light spot in the very middle stays in the middle.
    image.paste((255, 255, 255), (width // 2 - 2, height // 2 - 2, width // 2 + 2, height // 2 + 2))
    found = PHOTO(image)
    assert found.shape == (3, 24, 28)
    rows, columns = np.nonzero(found[2] > 0.5)
    assert rows.mean() == pytest.approx(11.5, abs=1)
    assert columns.mean() == pytest.approx(13.5, abs=1)


def test_colours_keep_their_order_and_are_normalised() -> None:
    found = PHOTO(Image.new("RGB", (40, 40), (255, 128, 0)))
    np.testing.assert_allclose(found[:, 0, 0], [(1 - 0.5) / 0.5, (128 / 255 - 0.25) / 0.5, 0], atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1", "CMYK", "I;16", "I", "F"])
def test_every_kind_of_image_gives_the_same_white(mode: str) -> None:
    if mode in ("I;16", "I"):
        image = Image.fromarray(np.full((8, 8), 65535, {"I;16": np.uint16, "I": np.int32}[mode]))
    else:
        image = Image.new("L", (8, 8), 255).convert(mode)
    assert image.mode == mode
    np.testing.assert_allclose(Digits().preprocessing((1, 8, 8))(image), _white(), rtol=1e-5)
    assert PHOTO(image)[0].min() == pytest.approx(1)


def _white() -> float:
    prepare = Digits().preprocessing((1, 8, 8))
    return (16 - prepare.mean[0]) / prepare.std[0]


def test_what_is_transparent_is_dark() -> None:
    clear = PHOTO(Image.new("RGBA", (40, 40), (255, 255, 255, 0)))
    np.testing.assert_allclose(clear, PHOTO(Image.new("RGB", (40, 40), (0, 0, 0))))


def test_shrinking_averages_as_the_data_sets_do() -> None:
    noise = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(noise, (16, 16), mode="bilinear", antialias=True)[0]
    prepare = Preprocessing("L", 1, (16, 16), None, 1.0, (0.0,), (1.0,))
    found = prepare(Image.fromarray(noise[0, 0].numpy()))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", DATASETS.names())
def test_every_data_set_says_how_an_image_becomes_its_input_or_that_none_does(name: str) -> None:
    for example in DATASETS.examples(name):
        prepare = example.preprocessing((3, 32, 32))
        if prepare is not None:
            assert prepare(Image.new("RGB", (50, 40))).shape == (3, 32, 32)
