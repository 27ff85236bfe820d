"""Images of a source of PIL images, read, sized and normalised when they are asked for."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sesurgery.diagnostics import fail, first_line
from sesurgery.training.data.base import Augment
from sesurgery.training.data.reading.paths import Paths
from sesurgery.training.preprocessing import UNREADABLE, Preprocessing


class LabelledImages(Protocol):
    """A torch map-style data set of (PIL image, class index), as torchvision's are."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


@dataclass(frozen=True)
class Stored:
    """The images of `source` at `positions`, as the network takes them; in memory only while they are used."""

    source: LabelledImages
    positions: NDArray[np.int64]
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, which: Any) -> torch.Tensor:
        images = [torch.from_numpy(self.preprocessing(self._open(index))) for index in self._chosen(which)]
        return torch.stack(images)

    def augmented(self, which: Sequence[int], augment: Augment) -> torch.Tensor:
        """As `__getitem__`, each image changed by `augment`."""
        return torch.stack([self._augmented(int(index), augment) for index in which])

    def _augmented(self, index: int, augment: Augment) -> torch.Tensor:
        prepare = self.preprocessing
        image = prepare.opened(self._open(int(self.positions[index])))
        part = augment.crop(image, index)
        values = prepare.array(prepare.sized(image) if part is None else part)
        changed = augment.pixels(torch.from_numpy(np.ascontiguousarray(values / np.float32(255))), index)
        normal = prepare.normalised((changed * 255).numpy())
        return augment.values(torch.from_numpy(normal), index)

    def _chosen(self, which: Any) -> list[int]:
        found = self.positions[which if isinstance(which, slice) else np.asarray(which)]
        return [int(index) for index in found]

    def _open(self, index: int) -> Image.Image:
        try:
            image: Image.Image = self.source[index][0]
        except UNREADABLE as error:
            place = getattr(self.source, "place", None)
            name = place(index) if place else f"sample {index}"
            raise fail(
                "SE503", f"{name} is not an image that can be read: {first_line(error)}", "fetch it again"
            ) from error
        return image


@dataclass(frozen=True)
class Arrays:
    """A source of uint8 images [N, H, W] or [N, H, W, 3] in memory, which is how some files hold them."""

    images: NDArray[np.uint8]
    targets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]), int(self.targets[index])


@dataclass(frozen=True)
class Files:
    """A source of image files: their paths and class indices, and the names of the classes where the reader knows."""

    paths: Paths
    targets: NDArray[np.int64]
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, samples: Iterable[tuple[str, int]], classes: tuple[str, ...] = ()) -> Files:
        """From paths and class indices, which are not kept as they come: see `Paths`."""
        targets = array("q")

        def named() -> Iterator[str]:
            for path, target in samples:
                targets.append(target)
                yield path

        return cls(Paths(named()), np.array(targets, np.int64), classes)

    def part(self, positions: NDArray[np.int64]) -> Files:
        """Those at some positions."""
        return Files.of(((self.paths[index], int(self.targets[index])) for index in positions), self.classes)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        with Image.open(self.place(index)) as image:
            image.load()
            return image, int(self.targets[index])

    def place(self, index: int) -> str:
        """The path of an image, which is what to call it in an error."""
        return self.paths[index]
