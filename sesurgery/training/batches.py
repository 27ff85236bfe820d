"""Batches of a split, read one after the other: in order for evaluation, shuffled for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader

from sesurgery.training.data.base import Augment, Split

Batch = tuple[torch.Tensor, torch.Tensor]


class _Batches:
    """Batches that are read by the process itself or, with `workers`, by that many others."""

    _loader: _Loader

    @property
    def workers(self) -> int:
        return self._loader.workers

    @workers.setter
    def workers(self, count: int) -> None:
        if count != self.workers:
            self._loader = _Loader(self._loader.reader, count)


class InOrder(_Batches):
    """Every sample once, in order; the last batch may be smaller."""

    def __init__(self, split: Split, batch_size: int, workers: int = 0) -> None:
        self.split = split
        self.batch_size = batch_size
        self._loader = _Loader(_Reader(split), workers)

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        count, size = len(self.split), self.batch_size
        yield from self._loader.read((0, list(range(at, min(at + size, count)))) for at in range(0, count, size))


class Shuffled(_Batches):
    """Full batches in an order that only the seed and `epoch` decide; the samples left over wait for another epoch.

    Of `shares` processes, each takes its own part of every batch, so that the batch size stays the recipe's. `augment`
    makes an epoch's random changes from a seed; the number of reading processes changes nothing but the speed. With
    `repeats`, an image comes so many times, each changed in another way, and an epoch has fewer images. `begin` batches
    of an epoch are left out: they were had before a resume.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        share: int = 0,
        shares: int = 1,
        *,
        workers: int = 0,
        augment: Callable[[int], Augment] | None = None,
        repeats: int = 1,
    ) -> None:
        self.split = split
        self.batch_size = min(batch_size, len(split))
        self.seed = seed
        self.share = share
        self.shares = shares
        self.repeats = repeats
        self.epoch = 0
        self.begin = 0
        self._loader = _Loader(_Reader(split, augment), workers)

    def __len__(self) -> int:
        return len(self.split) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        # A generator: the order is drawn at the first batch, after the epoch has been set.
        seed, count = derived_seed(self.seed, self.epoch), len(self.split)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        # Neighbours in a batch, the copies of an image go to different processes (arXiv 1901.09335).
        copies = torch.arange(self.repeats) * count
        order = (order[: -(-count // self.repeats), None] + copies).flatten()[:count]
        starts = range(self.begin * self.batch_size, len(self) * self.batch_size, self.batch_size)
        mine = (order[at : at + self.batch_size][self.share :: self.shares].tolist() for at in starts)
        yield from self._loader.read((seed, batch) for batch in mine)


Order = tuple[int, list[int]]
"""The epoch's seed, and the positions of a batch: all that a reading process has to be told."""


@dataclass(frozen=True)
class _Reader:
    """A data set whose samples are whole batches. Position + copy * length of the split is another copy of an image."""

    split: Split
    augment: Callable[[int], Augment] | None = None

    def __getitem__(self, order: Order) -> Batch:
        seed, which = order
        copies: dict[int, list[int]] = {}
        for number in which:
            copy, index = divmod(number, len(self.split))
            copies.setdefault(copy, []).append(index)
        parts = [
            self.split.batch(indices, None if self.augment is None else self.augment(derived_seed(seed, copy)))
            for copy, indices in sorted(copies.items())
        ]
        if len(parts) == 1:
            return parts[0]
        images, labels = zip(*parts, strict=True)
        return torch.cat(images), torch.cat(labels)


class _Orders:
    """The batches of the current epoch. A loader asks for an iterator at the start of every epoch."""

    now: Iterator[Order] = iter(())

    def __iter__(self) -> Iterator[Order]:
        return self.now


class _Loader:
    """Batches from a reader, by processes that stay from epoch to epoch; they start with the first batch."""

    def __init__(self, reader: _Reader, workers: int) -> None:
        self.reader = reader
        self._orders = _Orders()
        self._loader: DataLoader[Batch] | None = None
        self.workers = workers

    def read(self, orders: Iterator[Order]) -> Iterator[Batch]:
        if not self.workers:
            yield from map(self.reader.__getitem__, orders)
            return
        self._orders.now = orders
        if self._loader is None:
            self._loader = DataLoader(
                self.reader,  # type: ignore[arg-type]
                batch_size=None,
                sampler=self._orders,
                num_workers=self.workers,
                persistent_workers=True,
                pin_memory=torch.cuda.is_available(),
                # Its own: a loader draws a seed for its processes, which must not move the network's random draws.
                generator=torch.Generator().manual_seed(0),
            )
        yield from self._loader


def derived_seed(seed: int, *path: int) -> int:
    """A seed of 64 bits for one purpose, such as (seed, epoch, image): each path has a random stream of its own."""
    return int(np.random.SeedSequence(seed, spawn_key=path).generate_state(1, np.uint64)[0])
