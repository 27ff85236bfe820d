"""The contract of data sets: two splits whose images are read on demand, and class names.

Nothing here holds an image. A tensor of images is one way to have them; a reader of files is another, and what goes
through a split cannot tell them apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sesurgery.diagnostics import fail

if TYPE_CHECKING:
    import torch

    from sesurgery.training.preprocessing import Preprocessing


class Images(Protocol):
    """Images by their positions: a slice, or integers in any order, give a tensor [n, C, H, W] float32, normalised.

    A torch tensor [N, C, H, W] is one.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, which: Any, /) -> torch.Tensor: ...


class Augment(Protocol):
    """A random change of training images. What is drawn depends on the seed and on the image's position alone."""

    def crop(self, image: Any, index: int) -> Any | None:
        """A part of the image (PIL) in the network's size; None leaves its size to the data set."""

    def pixels(self, image: torch.Tensor, index: int) -> torch.Tensor:
        """Another image [C, H, W] for one whose values lie between 0 and 1."""

    def values(self, image: torch.Tensor, index: int) -> torch.Tensor:
        """The same for one that is normalised."""


@runtime_checkable
class Augmentable(Protocol):
    """Images that can be changed before they are normalised."""

    def augmented(self, which: Sequence[int], augment: Augment) -> torch.Tensor:
        """As `__getitem__`, each image changed by `augment`."""


@dataclass(frozen=True)
class Split:
    """Images and their class indices [N] int64. A torch map-style data set, and one that reads whole batches."""

    images: Images
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[[index]][0], self.labels[index]

    def batch(self, which: Sequence[int], augment: Augment | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The samples at these positions; raises SE501 if they are to be augmented and cannot be."""
        if augment is None:
            return self.images[which], self.labels[which]
        if not isinstance(self.images, Augmentable):
            raise fail(
                "SE501",
                "these samples are tensors: how an image lies in them is not known, so they cannot be augmented",
                "take `augment:` out, or change them where they are made",
            )
        return self.images.augmented(which, augment), self.labels[which]

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All samples in order, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self.images[start : start + size], self.labels[start : start + size]


@dataclass(frozen=True)
class Data:
    """A training split and a held-out split of the same classes; `origin` says where the samples come from."""

    train: Split
    held_out: Split
    classes: tuple[str, ...]
    origin: str


class Dataset(ABC):
    """A data set. Subclasses are frozen dataclasses whose fields are the options under `train: data:` in a spec."""

    @abstractmethod
    def load(self, shape: tuple[int, ...]) -> Data:
        """The data as images of `shape` (channels, height, width), the same split on every machine.

        Raises SE501 if the data cannot take that shape, and SE503 if they are not there or damaged.
        """

    def preprocessing(self, shape: tuple[int, ...]) -> Preprocessing | None:
        """How an image file is prepared as in the held-out split; None if the data have no image files."""
        return None
