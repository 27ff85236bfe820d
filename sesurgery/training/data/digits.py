"""Handwritten digits: the 1797 real 8 x 8 images that scikit-learn carries in its package; needs no download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from sesurgery.diagnostics import fail
from sesurgery.training.data.base import Data, Dataset, Split

if TYPE_CHECKING:
    import torch

    from sesurgery.training.preprocessing import Preprocessing


@dataclass(frozen=True)
class Digits(Dataset):
    """The digits, split by class in the same proportions; `held_out` is the share kept for the held-out split."""

    held_out: Annotated[float, Field(ge=0.01, le=0.9)] = 0.2
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def load(self, shape: tuple[int, int, int]) -> Data:
        """The digits resized bilinearly, grey or repeated to three channels.

        Normalised with the mean and the standard deviation of the training split. Raises SE501 for other channels.
        """
        from sklearn.datasets import load_digits

        images, labels, train, held_out = self._resized(shape)
        images = (images - images[train].mean()) / images[train].std()
        images = images.expand(-1, shape[0], -1, -1)
        return Data(
            train=Split(images[train].contiguous(), labels[train]),
            held_out=Split(images[held_out].contiguous(), labels[held_out]),
            classes=tuple(str(name) for name in load_digits().target_names),
            origin="scikit-learn load_digits: 1797 handwritten digits, UCI Optical Recognition of Handwritten Digits",
        )

    def preprocessing(self, shape: tuple[int, int, int]) -> Preprocessing:
        """Light strokes on a dark ground, as in the data: white is the data's largest value, 16."""
        from sesurgery.training.preprocessing import Preprocessing

        images, _, train, _ = self._resized(shape)
        mean, std = float(images[train].mean()), float(images[train].std())
        return Preprocessing("L", shape[0], (shape[1], shape[2]), None, 16 / 255, (mean,), (std,))

    def _resized(self, shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images [N, 1, H, W] from 0 to 16, labels, and the indices of both splits."""
        import torch
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
        from torch.nn import functional

        channels, height, width = shape
        if channels not in (1, 3):
            raise fail(
                "SE501",
                f"digits are grey images: they fill 1 or 3 channels, not {channels}",
                "change `input: shape`, or take another data set",
            )
        raw = load_digits()
        labels = torch.from_numpy(raw.target).long()
        images = torch.from_numpy(raw.images).float().unsqueeze(1)
        images = functional.interpolate(
            images, size=(height, width), mode="bilinear", align_corners=False, antialias=True
        )
        train, held_out = (
            torch.from_numpy(part)
            for part in train_test_split(
                torch.arange(len(labels)).numpy(), test_size=self.held_out, random_state=self.seed, stratify=raw.target
            )
        )
        return images, labels, train, held_out


EXAMPLES = (Digits(), Digits(held_out=0.5, seed=7))
