"""Batches of a split, read one after the other: in order for evaluation, shuffled for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from sesurgery.training.data.base import Augment, Split

Batch = tuple[torch.Tensor, torch.Tensor]


class InOrder:
    """Every sample once, in order; the last batch may be smaller."""

    def __init__(self, split: Split, batch_size: int, workers: int = 0) -> None:
        self.split = split
        self.batch_size = batch_size
        self.workers = workers

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        positions = torch.split(torch.arange(len(self.split)), self.batch_size)
        yield from _read(_Reader(self.split, None), [batch.tolist() for batch in positions], self.workers)


class Shuffled:
    """Full batches in an order that only the seed and `epoch` decide; the samples left over wait for another epoch.

    Of `shares` processes, each takes its own part of every batch, so that the batch size stays the recipe's. `augment`
    makes an epoch's random changes from a seed; the number of reading processes changes nothing but the speed.
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
    ) -> None:
        self.split = split
        self.batch_size = min(batch_size, len(split))
        self.seed = seed
        self.share = share
        self.shares = shares
        self.workers = workers
        self.augment = augment
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.split) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        # A generator: the order is drawn at the first batch, after the epoch has been set.
        seed = mixed(self.seed, self.epoch)
        order = torch.randperm(len(self.split), generator=torch.Generator().manual_seed(seed))
        mine = [batch[self.share :: self.shares].tolist() for batch in torch.split(order, self.batch_size)[: len(self)]]
        yield from _read(_Reader(self.split, self.augment(seed) if self.augment else None), mine, self.workers)


@dataclass(frozen=True)
class _Reader:
    """A data set whose samples are whole batches."""

    split: Split
    augment: Augment | None

    def __getitem__(self, which: Sequence[int]) -> Batch:
        return self.split.batch(which, self.augment)


def _read(reader: _Reader, batches: Sequence[list[int]], workers: int) -> Iterator[Batch]:
    if not workers:
        yield from map(reader.__getitem__, batches)
        return
    # A generator of its own: a loader draws a seed for its processes, which must not move the network's random draws.
    generator = torch.Generator().manual_seed(0)
    yield from DataLoader(reader, batch_size=None, sampler=batches, num_workers=workers, generator=generator)  # type: ignore[arg-type]


def mixed(*numbers: int) -> int:
    """One seed from several, so that neighbouring seeds and epochs do not share a stream."""
    mixture = 0
    for number in numbers:
        # splitmix64's step and finaliser.
        mixture = (mixture + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        mixture = ((mixture ^ (mixture >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        mixture = ((mixture ^ (mixture >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        mixture ^= mixture >> 31
    return mixture >> 1
