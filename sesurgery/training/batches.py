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
        yield from _read(_Reader(self.split), [batch.tolist() for batch in positions], self.workers)


class Shuffled:
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
        self.workers = workers
        self.augment = augment
        self.repeats = repeats
        self.epoch = 0
        self.begin = 0

    def __len__(self) -> int:
        return len(self.split) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        # A generator: the order is drawn at the first batch, after the epoch has been set.
        seed, count = mixed(self.seed, self.epoch), len(self.split)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        # Neighbours in a batch, the copies of an image go to different processes (arXiv 1901.09335).
        copies = torch.arange(self.repeats) * count
        order = (order[: -(-count // self.repeats), None] + copies).flatten()[:count]
        mine = [batch[self.share :: self.shares].tolist() for batch in torch.split(order, self.batch_size)[: len(self)]]
        changes = () if self.augment is None else tuple(self.augment(mixed(seed, copy)) for copy in range(self.repeats))
        yield from _read(_Reader(self.split, changes), mine[self.begin :], self.workers)


@dataclass(frozen=True)
class _Reader:
    """A data set whose samples are whole batches. Position + copy * length of the split is another copy of an image."""

    split: Split
    changes: Sequence[Augment] = ()
    """One a copy; empty where images stay as they are."""

    def __getitem__(self, which: Sequence[int]) -> Batch:
        copies: dict[int, list[int]] = {}
        for number in which:
            copy, index = divmod(number, len(self.split))
            copies.setdefault(copy, []).append(index)
        parts = [
            self.split.batch(indices, self.changes[copy] if self.changes else None)
            for copy, indices in sorted(copies.items())
        ]
        if len(parts) == 1:
            return parts[0]
        images, labels = zip(*parts, strict=True)
        return torch.cat(images), torch.cat(labels)


def _read(reader: _Reader, batches: Sequence[list[int]], workers: int) -> Iterator[Batch]:
    if not workers:
        yield from map(reader.__getitem__, batches)
        return
    # A generator of its own: a loader draws a seed for its processes, which must not move the network's random draws.
    generator = torch.Generator().manual_seed(0)
    options = {"num_workers": workers, "generator": generator, "pin_memory": torch.cuda.is_available()}
    yield from DataLoader(reader, batch_size=None, sampler=batches, **options)  # type: ignore[arg-type]


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
