"""From an image file to a network's input, as plain data: no torch, so that what only runs an engine can use it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, prod
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

Side = Annotated[int, Field(gt=0, le=65536)]
MOST_VALUES = 2**26
"""Pixels of an image, and values of a network's input: 256 MB each in fp32."""
UNREADABLE = (OSError, SyntaxError, TypeError, ValueError, MemoryError, Image.DecompressionBombError)
"""What Pillow raises for a file that is no image, or a broken one: a PNG that claims gigabytes, a wrong tag."""


@dataclass(frozen=True)
class Preprocessing:
    """What a data set does to an image in evaluation, in this order: mode, size, crop, border, scale, normalisation.

    `resize` is the height and width that the image is brought to, or one number for its shorter side; `crop` is the
    height and width that are then cut from the middle; `pad` is the height and width that black is added up to, on all
    sides. Values from 0 to 255 are multiplied by `scale`; then `mean` and `std` of each channel are taken out.
    """

    mode: Literal["L", "RGB"]
    channels: Side
    resize: tuple[Side, Side] | Side
    crop: tuple[Side, Side] | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    pad: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for what no network takes: too many values, or normalisation of other channels."""
        bands = 1 if self.mode == "L" else 3
        shape = self.crop or (self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize))
        for sizes in (shape, self.resize if isinstance(self.resize, tuple) else shape):
            if self.channels * prod(sizes) > MOST_VALUES:
                raise ValueError(f"{self.channels} x {sizes[0]} x {sizes[1]} values are more than {MOST_VALUES}")
        if self.channels != bands and bands != 1:
            raise ValueError(f"an image of mode {self.mode} has {bands} channels, not {self.channels}")
        if {len(self.mean), len(self.std)} - {1, bands}:
            raise ValueError(f"mean and std have one value, or {bands}")
        if not all(isfinite(value) for value in (self.scale, *self.mean, *self.std)) or not all(self.std):
            raise ValueError("scale, mean and std must be finite, and std not zero")

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """The image as [C, H, W]; raises ValueError for one too large to be held, before it is decoded."""
        return self.normalised(self.array(self.sized(self.opened(image))))

    def opened(self, image: Image.Image) -> Image.Image:
        """The image in the network's colours, of its own size; raises ValueError for one too large to be held."""
        if prod(image.size) > MOST_VALUES:
            raise ValueError(f"it has {image.size[0]} x {image.size[1]} pixels, at most {MOST_VALUES} are read")
        return _flat(image).convert("F" if self.mode == "L" else "RGB")

    def sized(self, image: Image.Image) -> Image.Image:
        """An opened image resized, cropped and padded to the network's height and width."""
        width, height = self._size(image)
        # PIL widens its filter when it shrinks, as torch does with antialias=True.
        image = image.resize((width, height), Image.Resampling[self.interpolation.upper()])
        if self.crop is not None:
            image = _from_middle(image, self.crop)
        # Pillow fills what is cropped beyond the border with black.
        return image if self.pad is None else _from_middle(image, self.pad)

    def array(self, image: Image.Image) -> NDArray[np.float32]:
        """Its values from 0 to 255 as [C, H, W]; grey repeated where the network takes more channels."""
        array = np.atleast_3d(np.asarray(image, np.float32)).transpose(2, 0, 1)
        return np.broadcast_to(array, (self.channels, *array.shape[1:]))

    def normalised(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """The values scaled and normalised (mean, std) per channel: the network's input."""
        mean, std = (np.asarray(values, np.float32).reshape(-1, 1, 1) for values in (self.mean, self.std))
        return np.ascontiguousarray((array * np.float32(self.scale) - mean) / std, np.float32)

    def _size(self, image: Image.Image) -> tuple[int, int]:
        if not isinstance(self.resize, int):
            return self.resize[1], self.resize[0]
        width, height = image.size
        shorter = min(width, height)
        resized = round(width * self.resize / shorter), round(height * self.resize / shorter)
        if self.channels * prod(resized) > MOST_VALUES:
            raise ValueError(
                f"{width} x {height} pixels become {resized[0]} x {resized[1]}: it is too long for its width"
            )
        return resized


def _from_middle(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    left, top = (image.width - size[1]) // 2, (image.height - size[0]) // 2
    return image.crop((left, top, left + size[1], top + size[0]))


def _flat(image: Image.Image) -> Image.Image:
    """Convert palettes to RGB, and composite transparent pixels on black."""
    if image.mode in ("P", "PA", "LA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear).convert("RGB")
    if image.mode.startswith("I"):
        # 16 bits a pixel; PIL would cut them off at 255.
        return Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
    return image
