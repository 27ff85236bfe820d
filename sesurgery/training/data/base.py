"""What a data set is to the rest: tensors in memory, split once and for all, shaped for the network's input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from sesurgery.training.preprocessing import Preprocessing


@dataclass(frozen=True)
class Split:
    """Images [N, C, H, W] float32, normalised, and class indices [N] int64."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


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
    def load(self, shape: tuple[int, int, int]) -> Data:
        """The data as images of `shape` (channels, height, width), the same split on every machine.

        Raises SE501 where the data cannot take that shape.
        """

    def preprocessing(self, shape: tuple[int, int, int]) -> Preprocessing | None:
        """How an image file becomes what the held-out split holds; None where there is no such thing."""
        return None
