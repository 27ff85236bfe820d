"""Random changes of training images, by torchvision's transforms.

What is drawn for an image depends on the epoch's seed and on the image's position alone: not on the batch it is in, nor
on the process that reads it. So a resumed run sees the images that an uninterrupted one would have seen.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torchvision.transforms import v2

from sesurgery.spec.train import Augment
from sesurgery.training.batches import derived_seed

BINS = 31


@dataclass(frozen=True)
class Augmentation:
    """The recipe's changes in one epoch, for images of (height, width)."""

    wanted: Augment
    size: tuple[int, int]
    seed: int

    @functools.cached_property
    def _crop(self) -> Any | None:
        if self.wanted.resized_crop is None:
            return None
        return v2.RandomResizedCrop(self.size, self.wanted.resized_crop, antialias=True)

    @functools.cached_property
    def _pixels(self) -> Any | None:
        wanted = self.wanted
        steps: list[Any] = []
        if wanted.shift:
            steps.append(v2.RandomCrop(self.size, padding=wanted.shift))
        if wanted.flip:
            steps.append(v2.RandomHorizontalFlip())
        if wanted.randaugment:
            steps.append(v2.RandAugment(wanted.randaugment, wanted.magnitude, BINS))
        return v2.Compose(steps) if steps else None

    @functools.cached_property
    def _values(self) -> Any | None:
        return v2.RandomErasing(self.wanted.erasing) if self.wanted.erasing else None

    def crop(self, image: Any, index: int) -> Any | None:
        """A random part of a PIL image in the network's size, or None if none is asked for."""
        return None if self._crop is None else self._drawn(self._crop, image, index, 0)

    def pixels(self, image: torch.Tensor, index: int) -> torch.Tensor:
        """The image [C, H, W] from 0 to 1, shifted, mirrored and put through RandAugment."""
        return image if self._pixels is None else self._drawn(self._pixels, image, index, 1).clamp(0, 1)

    def values(self, image: torch.Tensor, index: int) -> torch.Tensor:
        """The normalised image with a rectangle set to zero, the mean."""
        return image if self._values is None else self._drawn(self._values, image, index, 2)

    def _drawn(self, transform: Callable[[Any], Any], image: Any, index: int, stage: int) -> Any:
        with _seeded(derived_seed(self.seed, index, stage)):
            return transform(image)


def make_mixing(wanted: Augment | None, classes: int) -> Callable[..., Any] | None:
    """Mixup, CutMix or one of them at random, of a batch of images and labels; None if neither is asked for."""
    if wanted is None or classes < 2:
        return None
    parts: list[Any] = []
    if wanted.mixup:
        parts.append(v2.MixUp(alpha=wanted.mixup, num_classes=classes))
    if wanted.cutmix:
        parts.append(v2.CutMix(alpha=wanted.cutmix, num_classes=classes))
    return v2.RandomChoice(parts) if len(parts) > 1 else parts[0] if parts else None


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The CPU's random state from `seed`, and the caller's back afterwards. `torch.manual_seed` would reach GPUs."""
    generator = torch.default_generator
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)
