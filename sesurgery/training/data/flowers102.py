"""Oxford Flowers-102 (Nilsback and Zisserman 2008): 8,189 photographs of flowers in 102 classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sesurgery.training.data.reading.on_disk import Photographs

if TYPE_CHECKING:
    from sesurgery.training.data.reading.images import LabelledImages


@dataclass(frozen=True)
class Flowers102(Photographs):
    """Flowers-102: photographs of 102 kinds of flowers.

    Held out are the 6,149 of `test`, and training takes the other 2,040; or the 1,020 of `val`, and training 1,020.
    """

    held_out: Literal["test", "val"] = "test"

    title: ClassVar[str] = "Flowers-102"
    expected: ClassVar[str] = "flowers-102/ with jpg/, imagelabels.mat and setid.mat, unchanged"

    def open(self, *, train: bool) -> LabelledImages:
        from torchvision import datasets

        from sesurgery.training.data.reading.images import Files

        splits = (("train", "val") if self.held_out == "test" else ("train",)) if train else (self.held_out,)
        parts = [datasets.Flowers102(self.folder, split) for split in splits]
        # torchvision keeps them in no public attribute; opening every image to learn its label would take minutes.
        return Files.of(
            (str(path), label) for part in parts for path, label in zip(part._image_files, part._labels, strict=True)
        )

    def classes(self, source: Any) -> Sequence[str]:
        from torchvision import datasets

        return datasets.Flowers102.classes  # type: ignore[no-any-return]

    def download(self) -> None:
        from torchvision import datasets

        datasets.Flowers102(self.folder, download=True)


EXAMPLES = (Flowers102(), Flowers102(held_out="val"))
