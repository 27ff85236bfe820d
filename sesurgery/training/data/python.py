"""Data of your own: a function that gives two torch data sets and the names of the classes.

The named module is imported, which runs its code: only name what you trust.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sesurgery.catalog import import_object
from sesurgery.diagnostics import fail
from sesurgery.spec.code import Factory
from sesurgery.training.data.base import Data, Dataset, Split


@dataclass(frozen=True)
class Python(Dataset):
    """`factory: "package.module:make"`, called as `make(shape, **kwargs)`; returns (train, held_out, classes).

    `train` and `held_out` are map-style data sets of (tensor [C, H, W] float32, class index). One that has `targets` is
    not read through to learn its labels.
    """

    factory: Factory
    kwargs: dict[str, bool | int | float | str | None] = field(default_factory=dict)

    def load(self, shape: tuple[int, ...]) -> Data:
        """The factory's data for images of `shape`; raises SE503 if the factory fails, SE501 for other shapes."""
        try:
            factory: Any = import_object(self.factory, (Path.cwd(),))
        except (ImportError, AttributeError) as error:
            raise fail("SE503", f"the factory {self.factory!r} cannot be imported: {error}") from error
        made = factory(shape, **self.kwargs)
        if not isinstance(made, tuple) or len(made) != 3:
            text = f"the factory {self.factory!r} returned {type(made).__name__}"
            raise fail("SE501", text, "return (train, held_out, classes)")
        train, held_out, classes = made
        return Data(_split(train, shape), _split(held_out, shape), tuple(map(str, classes)), self.factory)


def _split(samples: Any, shape: tuple[int, ...]) -> Split:
    import torch

    known = getattr(samples, "targets", None)
    labels = torch.as_tensor(known if known is not None else [int(samples[index][1]) for index in range(len(samples))])
    first = samples[0][0]
    if tuple(first.shape) != shape or first.dtype != torch.float32:
        text = f"the data are {first.dtype} of {list(first.shape)}, not float32 of {list(shape)}"
        raise fail("SE501", text, "let the factory make them so: it is called with the network's shape")
    return Split(_Stacked(samples), labels.long())


@dataclass(frozen=True)
class _Stacked:
    """Images of a map-style data set, read one by one."""

    samples: Any

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, which: Any) -> Any:
        import torch

        chosen = torch.arange(len(self.samples))[which]
        return torch.stack([self.samples[int(index)][0] for index in chosen])


def stripes(shape: tuple[int, ...], samples: int = 64) -> tuple[Any, Any, tuple[str, ...]]:
    """The smallest factory: lying and standing stripes in noise."""
    import torch
    from torch.utils.data import TensorDataset

    def split(seed: int) -> TensorDataset:
        generator = torch.Generator().manual_seed(seed)
        images, labels = torch.randn(samples, *shape, generator=generator), torch.arange(samples) % 2
        images[labels == 0, :, ::2] += 2
        images[labels == 1, :, :, ::2] += 2
        return TensorDataset(images, labels)

    return split(0), split(1), ("lying", "standing")


EXAMPLES = (Python("sesurgery.training.data.python:stripes"),)
