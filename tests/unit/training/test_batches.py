from __future__ import annotations

import os

import torch

from sesurgery.training.batches import InOrder, Shuffled, derived_seed
from sesurgery.training.data.base import Split

SPLIT = Split(torch.arange(10.0).reshape(10, 1, 1, 1), torch.arange(10))


def labels(batches: InOrder | Shuffled) -> list[list[int]]:
    return [batch.tolist() for _, batch in batches]


def test_in_order_gives_every_sample_once() -> None:
    batches = InOrder(SPLIT, 4)
    assert labels(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(batches) == 3


def test_shuffled_gives_full_batches_without_a_repeat() -> None:
    batches = labels(Shuffled(SPLIT, 3, seed=0))
    assert [len(batch) for batch in batches] == [3, 3, 3]
    assert len({label for batch in batches for label in batch}) == 9


def test_images_and_labels_stay_together() -> None:
    for images, batch in Shuffled(SPLIT, 3, seed=0):
        assert images.flatten().long().tolist() == batch.tolist()


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    batches, same = Shuffled(SPLIT, 3, seed=5), Shuffled(SPLIT, 3, seed=5)
    first = labels(batches)
    torch.rand(1)
    assert labels(same) == first
    batches.epoch = 1
    assert labels(batches) != first
    assert labels(Shuffled(SPLIT, 3, seed=6)) != first


def test_an_epoch_set_after_iter_still_counts() -> None:
    batches = Shuffled(SPLIT, 3, seed=0)
    begun = iter(batches)
    batches.epoch = 4
    assert next(begun)[1].tolist() == labels(batches)[0]


def test_processes_share_each_batch() -> None:
    whole = labels(Shuffled(SPLIT, 4, seed=1))
    parts = [labels(Shuffled(SPLIT, 4, seed=1, share=share, shares=2)) for share in (0, 1)]
    assert [sorted(left + right) for left, right in zip(*parts, strict=True)] == [sorted(batch) for batch in whole]


def test_a_split_smaller_than_a_batch_is_one_batch() -> None:
    assert [sorted(batch) for batch in labels(Shuffled(SPLIT, 64, seed=0))] == [list(range(10))]


def test_neighbouring_seeds_and_epochs_do_not_meet() -> None:
    seeds = {derived_seed(seed, epoch) for seed in range(50) for epoch in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_reading_processes_change_nothing_but_the_speed() -> None:
    state = torch.get_rng_state()
    assert labels(Shuffled(SPLIT, 3, seed=5, workers=2)) == labels(Shuffled(SPLIT, 3, seed=5))
    assert labels(InOrder(SPLIT, 4, workers=1)) == labels(InOrder(SPLIT, 4))
    assert torch.equal(torch.get_rng_state(), state)


class Process:
    """Images that say which process read them."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, which: list[int]) -> torch.Tensor:
        return torch.full((len(which), 1, 1, 1), float(os.getpid()))


def test_reading_processes_stay_from_epoch_to_epoch() -> None:
    batches = Shuffled(Split(Process(), torch.arange(8)), 2, seed=0, workers=2)
    readers, orders = [], []
    for epoch in range(3):
        batches.epoch = epoch
        read = list(batches)
        readers.append({int(images[0]) for images, _ in read})
        orders.append([label for _, batch in read for label in batch.tolist()])
    assert readers[0] == readers[1] == readers[2]
    assert len(readers[0]) == 2
    assert os.getpid() not in readers[0]
    assert orders[0] != orders[1] != orders[2]


class Watched:
    """Images that remember how many of them were asked for at once."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.most = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, which: object) -> torch.Tensor:
        positions = torch.arange(self.count)[which]
        self.most = max(self.most, len(positions))
        return positions.float().reshape(-1, 1, 1, 1)


def test_no_more_than_a_batch_is_read_at_once() -> None:
    images = Watched(1000)
    split = Split(images, torch.arange(1000))
    assert len([label for batch in labels(Shuffled(split, 32, seed=0)) for label in batch]) == 992
    assert sum(map(len, labels(InOrder(split, 50)))) == 1000
    assert images.most == 50


def test_a_split_is_a_torch_data_set() -> None:
    loader = torch.utils.data.DataLoader(SPLIT, batch_size=4)
    assert [batch.tolist() for _, batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
