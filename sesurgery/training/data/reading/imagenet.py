"""ImageNet's images for validation as its archive unpacks: 50,000 in one folder, whose classes a table names."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from sesurgery.training.data.reading.folders import image_names
from sesurgery.training.data.reading.images import Files

KAGGLE = "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_devkit_t12"
_META, _TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"


def flat(root: Path, folder: Path, classes: tuple[str, ...]) -> Files:
    """ImageNet's images for validation in one folder, as its archive unpacks; `classes` are the training folders.

    Their classes come from the development kit, packed or not, or from Kaggle's table: beside the folder, or where
    Kaggle's archive has it. Raises ValueError without one, or if it does not fit the images.
    """
    table, index = _kaggle(root) or _devkit(root), {name: number for number, name in enumerate(classes)}
    names = sorted(image_names(folder))
    if table is None:
        raise ValueError(
            f"{folder.name}/ holds {len(names)} images and no folder of a class: lay {DEVKIT}.tar.gz (ImageNet's "
            f"development kit) or {KAGGLE} (Kaggle's) beside it, or sort the images into one folder a class"
        )
    if unnamed := [name for name in names if Path(name).stem not in table]:
        raise ValueError(f"the table has no class of {len(unnamed)} of {folder.name}/'s images, {unnamed[0]} for one")
    of = [table[Path(name).stem] for name in names]
    if unknown := sorted(set(of) - index.keys()):
        raise ValueError(f"{folder.name}/ has classes that are not trained on: {', '.join(unknown[:5])}")
    return Files.of(((str(folder / name), index[wnid]) for name, wnid in zip(names, of, strict=True)), classes)


def _kaggle(root: Path) -> Mapping[str, str] | None:
    """WordNet's number by image; its archive has the images three folders below the table."""
    places = (root, *root.resolve().parents[2:3])
    file = next((place / KAGGLE for place in places if (place / KAGGLE).is_file()), None)
    if file is None:
        return None
    with file.open(newline="", encoding="utf-8") as stream:
        # "n03995372 85 1 499 272": the class, and the box around each object.
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(stream)}


def _devkit(root: Path) -> Mapping[str, str] | None:
    """The same from the authors' own files: the n-th line is the class of the n-th image."""
    from scipy.io import loadmat

    read = _devkit_files(root)
    if read is None:
        return None
    synsets = loadmat(io.BytesIO(read[_META]), squeeze_me=True)["synsets"]
    # Inner nodes of the hierarchy are listed too, and hold no images of their own.
    leaves = synsets[synsets["num_children"] == 0]
    wnids = {int(number): str(wnid) for number, wnid in zip(leaves["ILSVRC2012_ID"], leaves["WNID"], strict=True)}
    numbers = map(int, read[_TRUTH].split())
    return {f"ILSVRC2012_val_{line:08d}": wnids[number] for line, number in enumerate(numbers, start=1)}


def _devkit_files(root: Path) -> Mapping[str, bytes] | None:
    folder, archive = root / DEVKIT / "data", root / f"{DEVKIT}.tar.gz"
    if folder.is_dir():
        return {name: (folder / name).read_bytes() for name in (_META, _TRUTH)}
    if not archive.is_file():
        return None
    with tarfile.open(archive) as packed:
        members = {name: packed.extractfile(f"{DEVKIT}/data/{name}") for name in (_META, _TRUTH)}
        return {name: member.read() for name, member in members.items() if member is not None}
