"""Whole batches cut from tensors in memory: no worker, no collating of single samples."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sesurgery.training.data.base import Split

Batch = tuple[torch.Tensor, torch.Tensor]


class InOrder:
    """Every sample once, in order; the last batch may be smaller."""

    def __init__(self, split: Split, batch_size: int) -> None:
        self.split = split
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        yield from zip(
            torch.split(self.split.images, self.batch_size),
            torch.split(self.split.labels, self.batch_size),
            strict=True,
        )


class Shuffled:
    """Full batches in an order that only the seed and `epoch` decide; the samples left over wait for another epoch.

    Of `shares` processes, each takes its own part of every batch, so that the batch size stays the recipe's.
    """

    def __init__(self, split: Split, batch_size: int, seed: int, share: int = 0, shares: int = 1) -> None:
        self.split = split
        self.batch_size = min(batch_size, len(split))
        self.seed = seed
        self.share = share
        self.shares = shares
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.split) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        # A generator: the order is drawn at the first batch, after the epoch has been set.
        order = torch.randperm(len(self.split), generator=torch.Generator().manual_seed(mixed(self.seed, self.epoch)))
        for batch in torch.split(order, self.batch_size)[: len(self)]:
            mine = batch[self.share :: self.shares]
            yield self.split.images[mine], self.split.labels[mine]


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
