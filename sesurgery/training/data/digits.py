"""Handwritten digits: the 1797 real 8 x 8 images that scikit-learn carries in its package; needs no download."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from sesurgery.diagnostics import fail
from sesurgery.training.data.base import Augment, Data, Dataset, Split

if TYPE_CHECKING:
    import torch

    from sesurgery.training.preprocessing import Preprocessing

WHITE = 16.0
"""The largest value in the data."""


@dataclass(frozen=True)
class Digits(Dataset):
    """The digits, split by class in the same proportions; `held_out` is the share kept for the held-out split."""

    held_out: Annotated[float, Field(ge=0.01, le=0.9)] = 0.2
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def load(self, shape: tuple[int, ...]) -> Data:
        """The digits resized bilinearly, grey or repeated to three channels.

        Normalised with the mean and the standard deviation of the training split. Raises SE501 for other channels.
        """
        raw, labels, train, held_out = self.raw(shape)
        mean, std = _statistics(raw[train], shape)
        return Data(
            train=Split(_Resized(raw[train], shape, mean, std), labels[train]),
            held_out=Split(_Resized(raw[held_out], shape, mean, std), labels[held_out]),
            classes=tuple(str(name) for name in _read().target_names),
            origin="scikit-learn load_digits: 1797 handwritten digits, UCI Optical Recognition of Handwritten Digits",
        )

    def preprocessing(self, shape: tuple[int, ...]) -> Preprocessing:
        """Light strokes on a dark ground, as in the data: white is the data's largest value, 16."""
        from sesurgery.training.preprocessing import Preprocessing

        raw, _, train, _ = self.raw(shape)
        mean, std = (float(value) for value in _statistics(raw[train], shape))
        return Preprocessing("L", shape[0], (shape[1], shape[2]), None, WHITE / 255, (mean,), (std,))

    def raw(self, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images [N, 1, 8, 8] from 0 to 16, labels, and the positions of both splits."""
        import torch
        from sklearn.model_selection import train_test_split

        if shape[0] not in (1, 3):
            raise fail(
                "SE501",
                f"digits are grey images: they fill 1 or 3 channels, not {shape[0]}",
                "change `input: shape`, or take another data set",
            )
        raw = _read()
        labels = torch.tensor(raw.target).long()
        images = torch.tensor(raw.images).float().unsqueeze(1)
        train, held_out = (
            torch.from_numpy(part)
            for part in train_test_split(
                torch.arange(len(labels)).numpy(), test_size=self.held_out, random_state=self.seed, stratify=raw.target
            )
        )
        return images, labels, train, held_out


@dataclass(frozen=True)
class _Resized:
    """Small images [N, 1, H, W], brought to `shape` and normalised when they are read."""

    raw: torch.Tensor
    shape: tuple[int, ...]
    mean: torch.Tensor
    std: torch.Tensor

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, which: Any) -> torch.Tensor:
        images = (_resize(self.raw[which], self.shape) - self.mean) / self.std
        return images.expand(-1, self.shape[0], -1, -1).contiguous()

    def augmented(self, which: Sequence[int], augment: Augment) -> torch.Tensor:
        """As `__getitem__`, each image changed by `augment`; its crops do not apply to 8 x 8 pixels."""
        import torch

        images = []
        for index, image in zip(which, _resize(self.raw[which], self.shape) / WHITE, strict=True):
            image = augment.pixels(image.expand(self.shape[0], -1, -1), int(index))
            images.append(augment.values((image * WHITE - self.mean) / self.std, int(index)))
        return torch.stack(images)


@functools.cache
def _read() -> Any:
    """What scikit-learn makes of its text file, once a process."""
    from sklearn.datasets import load_digits

    return load_digits()


def _resize(images: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    from torch.nn import functional

    return functional.interpolate(images, size=shape[1:], mode="bilinear", align_corners=False, antialias=True)


def _statistics(images: torch.Tensor, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation over all pixels in the size of the network."""
    resized = _resize(images, shape)
    return resized.mean(), resized.std()


EXAMPLES = (Digits(), Digits(held_out=0.5, seed=7))
