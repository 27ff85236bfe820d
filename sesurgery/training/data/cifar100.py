"""CIFAR-100 (Krizhevsky 2009): 50,000 and 10,000 colour images of a hundred classes, 32 x 32 pixels.

The files are pickles, which are code. torchvision compares each with its MD5 digest before it is read, so that no other
file is ever opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sesurgery.training.data.reading.on_disk import SmallImages

if TYPE_CHECKING:
    from sesurgery.training.data.reading.images import LabelledImages


@dataclass(frozen=True)
class Cifar100(SmallImages):
    """CIFAR-100: 60,000 colour images of a hundred classes, 32 x 32 pixels."""

    title: ClassVar[str] = "CIFAR-100"
    expected: ClassVar[str] = "cifar-100-python/ with train, test and meta, unchanged"
    native: ClassVar[tuple[int, int]] = (32, 32)
    statistics: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = (
        (0.5071, 0.4866, 0.4409),
        (0.2673, 0.2564, 0.2762),
    )

    def open(self, *, train: bool) -> LabelledImages:
        from torchvision import datasets

        return datasets.CIFAR100(self.folder, train=train)  # type: ignore[no-any-return]

    def download(self) -> None:
        from torchvision import datasets

        datasets.CIFAR100(self.folder, download=True)


EXAMPLES = (Cifar100(train_samples=5000, held_out_samples=3000), Cifar100(fit="pad"))
