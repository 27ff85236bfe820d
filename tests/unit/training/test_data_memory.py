"""The memory of a pass over a data set does not grow with the number of its images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FEW, MANY = 100, 5000
SHAPE = (3, 64, 64)

PASS = """
import resource, sys
import torch
from sesurgery.training.batches import InOrder, Shuffled
from sesurgery.training.data.image_folder import ImageFolder
from sesurgery.training.evaluation import split_logits
torch.set_num_threads(1)
data = ImageFolder(root=sys.argv[1]).load((3, 64, 64))
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
    peaks = {}
    for count in (FEW, MANY):
        command = [sys.executable, "-c", PASS, str(folder(tmp_path / str(count), count))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seen, peak = map(int, done.stdout.split())
        assert seen == 2 * count
        peaks[count] = peak / 1024
    # All of them as float32 would be 240 MB more; paths and labels are under one.
    assert MANY * np.prod(SHAPE) * 4 > 240 * 2**20 * 0.95
    assert peaks[MANY] - peaks[FEW] < 40, peaks
