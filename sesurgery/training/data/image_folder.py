"""Any folder of images with one folder a class; ImageNet's, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from sesurgery.training.data.reading.on_disk import Photographs

if TYPE_CHECKING:
    from sesurgery.training.data.reading.images import LabelledImages


@dataclass(frozen=True)
class ImageFolder(Photographs):
    """Images of your own: ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg, or with `share: 0.2` ROOT/CLASS/*.jpg.

    The two folders are as ImageNet lies; its `val` may be flat, as its archive unpacks, with a table beside it. With
    `share` that share of every class is held out, chosen by `seed`.
    """

    train: str = "train"
    held_out: str = "val"
    share: Annotated[float, Field(gt=0, lt=1)] | None = None

    title: ClassVar[str] = "the image folder"
    expected: ClassVar[str] = "a folder for training and one to hold out, or `share:`; in them one folder a class"

    own_files: ClassVar[str] = f"{Photographs.own_files}, and `share:` if it is not divided"

    def open(self, *, train: bool) -> LabelledImages:
        from torchvision.datasets.folder import find_classes

        from sesurgery.training.data.reading import imagenet
        from sesurgery.training.data.reading.choosing import shared
        from sesurgery.training.data.reading.folders import by_class, is_flat

        if self.share is not None:
            every = by_class(self.folder)
            return every.part(shared(every.targets, self.share, self.seed)[0 if train else 1])
        folder = self.folder / (self.train if train else self.held_out)
        known, _ = find_classes(self.folder / self.train)
        if not train and is_flat(folder):
            return imagenet.flat(self.folder, folder, tuple(known))
        given = by_class(folder)
        if unknown := sorted(set(given.classes) ^ set(known)):
            raise ValueError(f"{self.train}/ and {self.held_out}/ differ in classes: {', '.join(unknown[:5])}")
        return given


EXAMPLES = (ImageFolder(), ImageFolder(share=0.2))
