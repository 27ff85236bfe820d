"""CIFAR-10 (Krizhevsky 2009): 50,000 and 10,000 colour images of ten classes, 32 x 32 pixels.

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
class Cifar10(SmallImages):
    """CIFAR-10: 60,000 colour images of ten classes, 32 x 32 pixels."""

    title: ClassVar[str] = "CIFAR-10"
    expected: ClassVar[str] = "cifar-10-batches-py/ with data_batch_1 to 5, test_batch and batches.meta, unchanged"
    native: ClassVar[tuple[int, int]] = (32, 32)
    statistics: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = (
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
    )

    def open(self, *, train: bool) -> LabelledImages:
        from torchvision import datasets

        return datasets.CIFAR10(self.folder, train=train)  # type: ignore[no-any-return]

    def download(self) -> None:
        from torchvision import datasets

        datasets.CIFAR10(self.folder, download=True)


EXAMPLES = (Cifar10(train_samples=600, held_out_samples=300), Cifar10(fit="pad"))
