"""The memory of a pass over a data set does not grow with the number of its images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FEW, MANY = 100, 2000
SHAPE = (3, 64, 64)

PASSES = """
import resource, sys
import torch
from sesurgery.training.batches import InOrder, Shuffled
from sesurgery.training.data.image_folder import ImageFolder
from sesurgery.training.evaluation import split_logits
torch.set_num_threads(1)
for root in sys.argv[1:]:
    data = ImageFolder(root=root).load((3, 64, 64))
    passes = (Shuffled(data.train, 50, seed=0), InOrder(data.train, 50))
    seen = sum(len(labels) for batches in passes for _, labels in batches)
    split_logits(torch.nn.Sequential(torch.nn.AvgPool2d(64), torch.nn.Flatten()), data.train, 50)
    print(seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def folder(root: Path, images: int) -> Path:
    """`images` files that are one file to the disk."""
    first = root / "image.png"
    root.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(first)
    for place, count in (("train/cat", images), ("val/cat", 1)):
        (root / place).mkdir(parents=True)
        for number in range(count):
            os.link(first, root / place / f"{number}.png")
    return root


@pytest.mark.slow
def test_many_images_take_the_memory_of_few(tmp_path: Path) -> None:
    # One process, the few first: its peak only rises.
    folders = [str(folder(tmp_path / str(count), count)) for count in (FEW, MANY)]
    done = subprocess.run([sys.executable, "-c", PASSES, *folders], capture_output=True, text=True, check=True)
    (seen, few), (more, many) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (seen, more) == (2 * FEW, 2 * MANY)
    # All of them as float32 would be 90 MB more; paths and labels are under one.
    assert (MANY - FEW) * np.prod(SHAPE) * 4 > 85 * 2**20
    assert (many - few) / 1024 < 30, (few, many)
