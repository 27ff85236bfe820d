"""SVHN (Netzer et al. 2011): 73,257 and 26,032 colour images of digits on house fronts, 32 x 32 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sesurgery.training.data.reading.on_disk import SmallImages

if TYPE_CHECKING:
    from sesurgery.training.data.reading.images import LabelledImages


@dataclass(frozen=True)
class Svhn(SmallImages):
    """SVHN: 99,289 colour images of house-number digits, 32 x 32 pixels; `extra` adds 531,131 easier ones."""

    extra: bool = False

    title: ClassVar[str] = "SVHN"
    expected: ClassVar[str] = "train_32x32.mat and test_32x32.mat (and extra_32x32.mat), unchanged"
    native: ClassVar[tuple[int, int]] = (32, 32)
    statistics: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = (
        (0.4377, 0.4438, 0.4728),
        (0.1980, 0.2010, 0.1970),
    )

    def open(self, *, train: bool) -> LabelledImages:
        import numpy as np
        from torchvision import datasets

        from sesurgery.training.data.reading.images import Arrays

        parts = [datasets.SVHN(self.folder, split) for split in self._files(train=train)]
        images = np.concatenate([part.data for part in parts]) if len(parts) > 1 else parts[0].data
        return Arrays(images.transpose(0, 2, 3, 1), np.concatenate([part.labels for part in parts]))

    def classes(self, source: Any) -> Sequence[str]:
        return tuple("0123456789")

    def download(self) -> None:
        from torchvision import datasets

        for split in (*self._files(train=True), *self._files(train=False)):
            datasets.SVHN(self.folder, split, download=True)

    def _files(self, *, train: bool) -> tuple[str, ...]:
        return (("train", "extra") if self.extra else ("train",)) if train else ("test",)


EXAMPLES = (Svhn(train_samples=600, held_out_samples=300),)
