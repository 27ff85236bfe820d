"""MNIST (LeCun et al. 1998): 60,000 and 10,000 grey images of handwritten digits, 28 x 28 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sesurgery.training.data.reading.on_disk import SmallImages

if TYPE_CHECKING:
    from sesurgery.training.data.reading.images import LabelledImages


@dataclass(frozen=True)
class Mnist(SmallImages):
    """MNIST: 70,000 grey images of handwritten digits, 28 x 28 pixels."""

    title: ClassVar[str] = "MNIST"
    expected: ClassVar[str] = "MNIST/raw/ with train- and t10k-images-idx3-ubyte and -labels-idx1-ubyte, or .gz"
    native: ClassVar[tuple[int, int]] = (28, 28)
    statistics: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = ((0.1307,), (0.3081,))

    def open(self, *, train: bool) -> LabelledImages:
        from sesurgery.training.data.reading import idx

        return idx.read((self.folder / "MNIST" / "raw", self.folder), train=train)

    def classes(self, source: Any) -> Sequence[str]:
        return tuple("0123456789")

    def download(self) -> None:
        from torchvision import datasets

        from sesurgery.training.data.reading import idx

        idx.fetch(datasets.MNIST, self.folder)


EXAMPLES = (Mnist(train_samples=600, held_out_samples=300),)
