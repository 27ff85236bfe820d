"""Paths in little memory, and the same that were given."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import pytest
import torch

from sesurgery.training.batches import InOrder, Shuffled
from sesurgery.training.data.base import Split
from sesurgery.training.data.reading.images import Files
from sesurgery.training.data.reading.paths import Paths

MANY = 20_000


def held(make: Callable[[], object]) -> int:
    """Bytes that Python and NumPy hold for what is made, after it was made."""
    tracemalloc.start()
    try:
        made = make()
        return tracemalloc.get_traced_memory()[0] if made is not None else 0
    finally:
        tracemalloc.stop()


def samples() -> Iterator[tuple[str, int]]:
    return ((f"/data/set/train/class_{index % 100}/image_{index:08d}.JPEG", index % 100) for index in range(MANY))


def test_paths_come_back_as_they_were() -> None:
    given = ["a.png", "/x/y/a.png", "/x/z/b.png", "/x/y/\u00e4 \udcff.png", "x//c.png", "/d.png"]
    paths = Paths(given)
    assert [paths[index] for index in range(len(paths))] == [*given[:4], "x/c.png", "/d.png"]
    with pytest.raises(IndexError):
        paths[len(given)]


def test_a_part_of_the_files_keeps_their_order_and_classes() -> None:
    files = Files.of([("x/a", 0), ("y/b", 1), ("x/c", 0)], ("x", "y"))
    part = files.part(torch.tensor([2, 1]).numpy())
    assert ([part.place(0), part.place(1)], part.targets.tolist(), part.classes) == (["x/c", "y/b"], [0, 1], ("x", "y"))


def test_a_file_takes_few_bytes() -> None:
    compact, listed = held(lambda: Files.of(samples())), held(lambda: list(samples()))
    # A name of 19 characters, its end, its folder and its class.
    assert compact / MANY < 48
    assert compact < listed / 3


@pytest.mark.parametrize("kind", [lambda split: InOrder(split, 50), lambda split: Shuffled(split, 50, 0)])
def test_an_epochs_order_is_no_list(kind: Callable[[Split], InOrder | Shuffled]) -> None:
    split = Split(torch.zeros(MANY, 1, 1, 1), torch.zeros(MANY, dtype=torch.int64))
    batches = kind(split)
    next(iter(batches))

    def begun() -> object:
        begun = iter(batches)
        next(begun)
        return begun

    assert held(begun) < 4 * MANY
