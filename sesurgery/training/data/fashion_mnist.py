"""Fashion-MNIST (Xiao et al., arXiv 1708.07747): 60,000 and 10,000 grey images of clothes, 28 x 28 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sesurgery.training.data.reading.on_disk import SmallImages

if TYPE_CHECKING:
    from sesurgery.training.data.reading.images import LabelledImages

PACKAGED = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""


@dataclass(frozen=True)
class FashionMnist(SmallImages):
    """Fashion-MNIST: 70,000 grey images of clothes in ten classes, 28 x 28 pixels.

    Read from torchvision's layout under `root`, from `root` itself, or from Debian's package dataset-fashion-mnist.
    """

    title: ClassVar[str] = "Fashion-MNIST"
    expected: ClassVar[str] = "FashionMNIST/raw/ with train- and t10k-images-idx3-ubyte and -labels-idx1-ubyte, or .gz"
    native: ClassVar[tuple[int, int]] = (28, 28)
    statistics: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = ((0.2860,), (0.3530,))

    def open(self, *, train: bool) -> LabelledImages:
        from sesurgery.training.data.reading import idx

        return idx.read((self.folder / "FashionMNIST" / "raw", self.folder, PACKAGED), train=train)

    def classes(self, source: Any) -> Sequence[str]:
        from torchvision import datasets

        return datasets.FashionMNIST.classes  # type: ignore[no-any-return]

    def download(self) -> None:
        from torchvision import datasets

        from sesurgery.training.data.reading import idx

        idx.fetch(datasets.FashionMNIST, self.folder)


EXAMPLES = (
    FashionMnist(train_samples=600, held_out_samples=300),
    FashionMnist(fit="pad", train_samples=500, held_out_samples=300),
)
