"""Feeds are checked before the engine sees them, and every mistake is named at once."""

from dataclasses import dataclass

import numpy as np
import pytest

from sesurgery.backends.base import TensorInfo
from sesurgery.backends.inputs import feeds as _feeds
from sesurgery.diagnostics import SesurgeryError

INPUTS = (TensorInfo("image", ("batch", 3, 4, 4), "float32"), TensorInfo("scale", ("batch",), "float32"))
BOUNDS = {"image": ((2, 3, 4, 4), (8, 3, 4, 4)), "scale": ((2,), (8,))}


def feeds(batch: int = 2) -> dict[str, np.ndarray]:
    return {"image": np.ones((batch, 3, 4, 4), np.float32), "scale": np.ones(batch, np.float32)}


def test_feeds_that_fit_come_back_in_the_order_of_the_inputs_and_in_c_layout() -> None:
    given = feeds()
    given["image"] = np.asfortranarray(given["image"])
    checked = _feeds.check(INPUTS, {"scale": given["scale"], "image": given["image"]}, BOUNDS)
    assert list(checked) == ["image", "scale"]
    assert checked["image"].flags.c_contiguous


@dataclass(frozen=True)
class Mistake:
    name: str
    change: dict[str, object]
    message: str


MISTAKES = [
    Mistake("misspelt name", {"imgae": np.ones(1)}, "there is no input 'imgae'(.|\n)*did you mean 'image'"),
    Mistake("float64", {"image": np.ones((2, 3, 4, 4))}, "'image' has dtype float64, expected float32"),
    Mistake("foreign byte order", {"image": np.ones((2, 3, 4, 4), ">f4")}, "'image' has dtype >f4, expected float32"),
    Mistake("a list", {"scale": [1.0, 1.0]}, "'scale' must be a numpy array, found list"),
    Mistake("another rank", {"image": np.ones((3, 4, 4), "f4")}, r"'image' has shape \[3, 4, 4\], expected"),
    Mistake("another height", {"image": np.ones((2, 3, 5, 4), "f4")}, r"has shape \[2, 3, 5, 4\], expected"),
    Mistake("an empty batch", {"image": np.ones((0, 3, 4, 4), "f4")}, r"dimension 0 \(batch\) is empty"),
    Mistake("batches that differ", {"scale": np.ones(3, "f4")}, "'scale' has batch 3, but 'image' has batch 2"),
    Mistake("a batch too large", feeds(9), "'image' has batch 9, the engine was built for 2 to 8"),
    Mistake("a batch too small", feeds(1), "'image' has batch 1, the engine was built for 2 to 8"),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_feed_that_does_not_fit_is_named_with_what_was_expected(mistake: Mistake) -> None:
    with pytest.raises(SesurgeryError, match=f"SE606(.|\n)*{mistake.message}"):
        _feeds.check(INPUTS, {**feeds(), **mistake.change}, BOUNDS)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(SesurgeryError) as raised:
        _feeds.check(INPUTS, {"imgae": np.ones(1), "scale": np.ones(2)})
    assert [item.message for item in raised.value.diagnostics] == [
        "there is no input 'imgae'",
        "input 'image' is missing",
        "input 'scale' has dtype float64, expected float32",
    ]
