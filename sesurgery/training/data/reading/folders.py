"""Image files in folders, one a class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, has_file_allowed_extension, make_dataset

from sesurgery.training.data.reading.images import Files


def by_class(root: Path, names: tuple[str, ...] = ()) -> Files:
    """The images below `root`, in the order of torchvision's ImageFolder; `names` stand for the folders' own.

    Raises FileNotFoundError without a folder, and for folders without an image.
    """
    classes, index = find_classes(str(root))

    def samples() -> Iterator[tuple[str, int]]:
        # One class at a time: what torchvision returns takes 200 bytes an image.
        for name in classes:
            yield from make_dataset(str(root), {name: index[name]}, IMG_EXTENSIONS, allow_empty=True)

    files = Files.of(samples(), names or tuple(classes))
    counts = np.bincount(files.targets, minlength=len(classes))
    if empty := [name for name, count in zip(classes, counts, strict=True) if not count]:
        raise FileNotFoundError(f"{root.as_posix()}/ has no image in {', '.join(empty[:5])}")
    return files


def is_flat(folder: Path) -> bool:
    """Whether it holds images, and no folder."""
    kinds = {entry.is_dir() for entry in os.scandir(folder)}
    return kinds == {False} and any(True for _ in image_names(folder))


def image_names(folder: Path) -> Iterator[str]:
    """Of the images in a folder, in the order of the disk."""
    return (entry.name for entry in os.scandir(folder) if has_file_allowed_extension(entry.name, IMG_EXTENSIONS))
