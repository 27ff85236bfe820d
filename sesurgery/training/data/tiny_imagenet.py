"""Tiny-ImageNet (Stanford CS231n): 100,000 and 10,000 colour images of 200 classes, 64 x 64 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sesurgery.training.data.reading.on_disk import SmallImages

if TYPE_CHECKING:
    from sesurgery.training.data.reading.images import LabelledImages

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


@dataclass(frozen=True)
class TinyImagenet(SmallImages):
    """Tiny-ImageNet: 110,000 colour images of 200 of ImageNet's classes, 64 x 64 pixels; held out is `val`."""

    title: ClassVar[str] = "Tiny-ImageNet"
    expected: ClassVar[str] = (
        "tiny-imagenet-200/ with train/WNID/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt and words.txt"
    )
    native: ClassVar[tuple[int, int]] = (64, 64)
    statistics: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = (
        (0.4802, 0.4481, 0.3975),
        (0.2770, 0.2691, 0.2821),
    )

    def open(self, *, train: bool) -> LabelledImages:
        from torchvision.datasets.folder import find_classes

        from sesurgery.training.data.reading.folders import by_class
        from sesurgery.training.data.reading.images import Files

        folder = self.folder / "tiny-imagenet-200"
        wnids, _ = find_classes(folder / "train")
        words = dict(line.split("\t", 1) for line in (folder / "words.txt").read_text().splitlines() if "\t" in line)
        names = tuple(words.get(wnid, wnid).split(",")[0] for wnid in wnids)
        if train:
            # Below each class lies a folder images/, which is looked into.
            return by_class(folder / "train", names)
        # The held-out images lie in one folder, and a table says what each is: file, class and a box.
        rows = [line.split("\t")[:2] for line in (folder / "val" / "val_annotations.txt").read_text().splitlines()]
        index = {wnid: number for number, wnid in enumerate(wnids)}
        return Files.of(((str(folder / "val" / "images" / file), index[wnid]) for file, wnid in rows), names)

    def download(self) -> None:
        from torchvision.datasets.utils import download_and_extract_archive

        download_and_extract_archive(URL, str(self.folder), md5=MD5)


EXAMPLES = (TinyImagenet(), TinyImagenet(train_samples=10_000))
