"""From an image file to a network's input, as plain data: no torch, so that what only runs an engine can use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Preprocessing:
    """What a data set does to an image in evaluation, in this order: mode, size, crop, scale, mean and deviation.

    `resize` is the height and width that the image is brought to, or one number for its shorter side; `crop` is the
    height and width that are then cut from the middle. Values from 0 to 255 are multiplied by `scale`.
    """

    mode: Literal["L", "RGB"]
    channels: int
    resize: tuple[int, int] | int
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """The image as [C, H, W]."""
        image = _flat(image).convert("F" if self.mode == "L" else "RGB")
        width, height = self._size(image)
        # PIL widens its filter when it shrinks, as torch does with antialias=True.
        image = image.resize((width, height), Image.Resampling[self.interpolation.upper()])
        if self.crop is not None:
            top, left = (height - self.crop[0]) // 2, (width - self.crop[1]) // 2
            image = image.crop((left, top, left + self.crop[1], top + self.crop[0]))
        array = np.atleast_3d(np.asarray(image, np.float32)).transpose(2, 0, 1) * np.float32(self.scale)
        mean, std = (np.asarray(values, np.float32).reshape(-1, 1, 1) for values in (self.mean, self.std))
        normal = (array - mean) / std
        return np.ascontiguousarray(np.broadcast_to(normal, (self.channels, *normal.shape[1:])), np.float32)

    def _size(self, image: Image.Image) -> tuple[int, int]:
        if not isinstance(self.resize, int):
            return self.resize[1], self.resize[0]
        width, height = image.size
        shorter = min(width, height)
        return round(width * self.resize / shorter), round(height * self.resize / shorter)


def _flat(image: Image.Image) -> Image.Image:
    """Colours of a palette written out, and what is transparent laid on black."""
    if image.mode in ("P", "PA", "LA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear).convert("RGB")
    if image.mode.startswith("I"):
        # 16 bits a pixel; PIL would cut them off at 255.
        return Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
    return image
