"""From images of one size to the network's: small ones as a whole, large ones by a crop from the middle."""

from __future__ import annotations

from typing import Literal

from sesurgery.diagnostics import fail
from sesurgery.training.preprocessing import Preprocessing

Shape = tuple[int, ...]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of values between 0 and 1."""


def small(
    name: str, native: tuple[int, int], statistics: Statistics, fit: Literal["resize", "pad"], shape: Shape
) -> Preprocessing:
    """Images of a fixed small size, resized to the network's, or with black around them.

    Raises SE501 if they do not fill the channels, or are larger than what they would be padded to.
    """
    mode = require_channels(name, len(statistics[0]), shape)
    size = (shape[1], shape[2])
    if fit == "pad" and (size[0] < native[0] or size[1] < native[1]):
        text = f"{name} of {native[0]}x{native[1]} pixels cannot be padded to {size[0]}x{size[1]}"
        raise fail("SE501", text, "take `fit: resize`, or a larger `input: shape`")
    resize, pad = (native, size) if fit == "pad" else (size, None)
    return Preprocessing(mode, shape[0], resize, None, 1 / 255, *statistics, pad=pad)


def large(name: str, statistics: Statistics, share: float, shape: Shape) -> Preprocessing:
    """Photographs: the shorter side to size / `share`, and the middle cut out; as ImageNet is evaluated.

    Where height and width differ, the image is brought to both, without a crop. Raises SE501 for other channels.
    """
    mode = require_channels(name, len(statistics[0]), shape)
    _, height, width = shape
    if height != width:
        return Preprocessing(mode, shape[0], (height, width), None, 1 / 255, *statistics)
    return Preprocessing(mode, shape[0], round(height / share), (height, width), 1 / 255, *statistics)


def require_channels(name: str, channels: int, shape: Shape) -> Literal["L", "RGB"]:
    """The mode of the images; raises SE501 if the network takes other channels than they fill."""
    if len(shape) != 3:
        text = f"{name} are images, and the network takes clips of {'x'.join(map(str, shape))}"
        raise fail("SE501", text, "take a data set of clips: 'source: python'")
    fills = (1, 3) if channels == 1 else (3,)
    if shape[0] not in fills:
        what = "grey images: they fill 1 or 3 channels" if channels == 1 else "colour images: they fill 3 channels"
        text = f"{name} are {what}, not {shape[0]}"
        raise fail("SE501", text, "change `input: shape`, or take another data set")
    return "L" if channels == 1 else "RGB"
