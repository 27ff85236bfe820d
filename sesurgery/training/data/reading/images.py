"""Images of a source of PIL images, read, sized and normalised when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sesurgery.diagnostics import fail, first_line
from sesurgery.training.data.base import Augment
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
            samples = getattr(self.source, "samples", None)
            name = samples[index][0] if samples else f"sample {index}"
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

    samples: Sequence[tuple[str, int]]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, target = self.samples[index]
        with Image.open(path) as image:
            image.load()
            return image, target

    @property
    def targets(self) -> list[int]:
        """The class indices, without opening a file."""
        return [target for _, target in self.samples]
