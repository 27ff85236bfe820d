"""Data sets in files: opened by a reader, and an error that says what was expected where when that fails."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from sesurgery.diagnostics import SesurgeryError, fail, first_line
from sesurgery.training.data.base import Data, Dataset, Split

if TYPE_CHECKING:
    from sesurgery.training.data.reading.images import LabelledImages
    from sesurgery.training.preprocessing import Preprocessing

Samples = Annotated[int, Field(gt=0)]
Deviation = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class OnDisk(Dataset):
    """A data set whose two splits come from files under `root`, relative to the current folder.

    `train_samples` and `held_out_samples` take so many of each split, chosen by `seed`.
    """

    root: str = "data"
    train_samples: Samples | None = None
    held_out_samples: Samples | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    title: ClassVar[str]
    """How the data set is called where it comes from."""
    expected: ClassVar[str]
    """What lies under `root`."""
    own_files: ClassVar[str] = "set `root:` under `train: data:` to the folder that holds it"
    """What to do about files that nobody publishes."""

    @abstractmethod
    def open(self, *, train: bool) -> LabelledImages:
        """A split as (PIL image, class index); raises whatever its reader raises where files are missing or damaged."""

    def targets(self, source: Any) -> Sequence[int]:
        """The class indices of an opened split, without reading an image."""
        return source.targets  # type: ignore[no-any-return]

    def classes(self, source: Any) -> Sequence[str]:
        """The classes' names."""
        return source.classes  # type: ignore[no-any-return]

    def download(self) -> None:
        """Download into `root` with a checksum; raises what the network raises."""
        text = f"{self.title} is not downloaded: the files are yours"
        raise fail("SE503", text, f"it is read from {self.folder.as_posix()}/: {self.expected}")

    @property
    def fetched(self) -> bool:
        """Whether it can be downloaded."""
        return type(self).download is not OnDisk.download

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return Path(self.root).expanduser()

    @property
    def name(self) -> str:
        """Its name in a spec: the plugin's file."""
        return type(self).__module__.rpartition(".")[2]

    def load(self, shape: tuple[int, ...]) -> Data:
        """The data as images of `shape`. Raises SE501 for other channels or sizes, and SE503 for missing files."""
        from sesurgery.training.data.reading.choosing import part

        prepare = self.preprocessing(shape)
        train, held_out = self.opened(train=True), self.opened(train=False)
        names = tuple(map(str, self.classes(train)))
        return Data(
            self._split(train, part(len(train), self.train_samples, self.seed), prepare, names),
            self._split(held_out, part(len(held_out), self.held_out_samples, self.seed + 1), prepare, names),
            names,
            f"{self.title}, from {self.folder.as_posix()}",
        )

    def _split(self, source: LabelledImages, positions: Any, prepare: Any, classes: tuple[str, ...]) -> Split:
        import numpy as np
        import torch

        from sesurgery.training.data.reading.images import Stored

        labels = np.asarray(self.targets(source), np.int64)
        if len(labels) != len(source) or not len(labels) or labels.min() < 0 or labels.max() >= len(classes):
            text = f"{len(source)} images with labels from 0 to {len(classes) - 1} were expected"
            raise self.damaged(f"{text}; there are {len(labels)} labels{_range(labels)}")
        return Split(Stored(source, positions, prepare), torch.from_numpy(labels[positions]))

    def opened(self, *, train: bool) -> LabelledImages:
        """A split's images as they lie in the files; raises SE503 if they are missing or damaged."""
        try:
            return self.open(train=train)
        except SesurgeryError:
            raise
        # Readers raise what their file formats make them trip over.
        except Exception as error:
            if not self.folder.exists():
                raise self.damaged(f"{self.folder.as_posix()}/ is not there") from error
            raise self.damaged(f"{self.folder.as_posix()}/ does not hold it: {first_line(error)}") from error

    def damaged(self, found: str) -> SesurgeryError:
        """The error for files that are missing or not what they should be."""
        at = "" if self.root == "data" else f" --root {self.root}"
        hint = (
            f"fetch it with `sesurgery data fetch {self.name}{at}`, or set `root:` under `train: data:`"
            if self.fetched
            else self.own_files
        )
        return fail("SE503", f"{self.title}: {found}; expected under {self.folder.as_posix()}/: {self.expected}", hint)


@dataclass(frozen=True)
class Photographs(OnDisk):
    """Photographs of any size: the shorter side to the network's size / `crop`, and the middle cut out.

    `mean` and `std` are of red, green and blue between 0 and 1; ImageNet's unless given, as pretrained networks want.
    """

    crop: Annotated[float, Field(gt=0, le=1)] = 0.875
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)

    def preprocessing(self, shape: tuple[int, ...]) -> Preprocessing:
        from sesurgery.training.data.reading.sizes import large

        return large(self.title, (self.mean, self.std), self.crop, shape)


@dataclass(frozen=True)
class SmallImages(OnDisk):
    """Images of one small size, resized to the network's input, or padded with black up to it."""

    fit: Literal["resize", "pad"] = "resize"

    native: ClassVar[tuple[int, int]]
    """Height and width in the files."""
    statistics: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]]
    """Mean and standard deviation of each channel over the training images, of values between 0 and 1."""

    def preprocessing(self, shape: tuple[int, ...]) -> Preprocessing:
        from sesurgery.training.data.reading.sizes import small

        return small(self.title, self.native, self.statistics, self.fit, shape)


def _range(labels: Any) -> str:
    return f" from {labels.min()} to {labels.max()}" if len(labels) else ""
