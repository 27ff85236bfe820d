"""Samples in tar files by their place: where each image lies in its shard, and its label, found once.

WebDataset's library expands the names, fetches what is no file, and says how a member's name divides into key and
extension. It reads shards from end to end; a sample order that a seed decides needs every sample by its number.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
from PIL import Image

from sesurgery.diagnostics import fail
from sesurgery.spec.code import SHELL

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "ppm"})


class Shards:
    """A source of (PIL image, class index) in shards, which are opened for every image: workers share no handle.

    Keeps four integers a sample. Raises ValueError for a shard that is no plain tar file, and for samples without
    an image or a label.
    """

    def __init__(self, paths: list[Path], label: str) -> None:
        self._paths = paths
        found = (
            value for number, path in enumerate(paths) for entry in _entries(path, number, label) for value in entry
        )
        table = np.fromiter(found, np.int64).reshape(-1, 4)
        self._shard, self._offset, self._size, self.targets = table.T.copy()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        with open(self._paths[self._shard[index]], "rb") as shard:
            shard.seek(self._offset[index])
            data = shard.read(self._size[index])
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image, int(self.targets[index])

    def place(self, index: int) -> str:
        """The shard of a sample and where its image begins, which is what to call it in an error."""
        return f"{self._paths[self._shard[index]].as_posix()}, the image at byte {self._offset[index]},"


def files(given: str, folder: Path) -> list[Path]:
    """The shards that a name stands for, fetched where they are no files; raises SE503 without the library."""
    try:
        from webdataset import shardlists
        from webdataset.cache import FileCache
    except ImportError as error:
        raise fail("SE503", "shards need the package webdataset", "pip install 'sesurgery[webdataset]'") from error
    cache = FileCache(str(folder / "shards"), url_to_name=_cached_name)
    found: list[Path] = []
    for name in shardlists.expand_urls(given):
        # What a shell runs begins with it in the spec, where a person sees it.
        if name.startswith(SHELL) and not given.startswith(SHELL):
            raise ValueError(f"a command to run stands alone and begins with {SHELL}, not as in {given}")
        if urlparse(name).scheme in ("http", "https") or name.startswith(SHELL):
            found.append(Path(cache.get_file(name)))
        elif any(letter in name for letter in "*?["):
            found += sorted(folder.glob(name))
        else:
            found.append(folder / name)
    if not found:
        raise ValueError(f"no file fits {given}")
    return found


def _cached_name(url: str) -> str:
    """A file name of its own for every url: shards of two sets are often named alike."""
    return f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.tar"


def _entries(path: Path, number: int, label: str) -> Iterator[tuple[int, int, int, int]]:
    """(shard, offset, bytes, class) of each sample in a shard, in its order."""
    from webdataset.tariterators import base_plus_ext

    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    extension, _, key_in_json = label.partition(":")
    # "r:": in a compressed file a sample has no place of its own.
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            # It would remember every member.
            archive.members.clear()  # type: ignore[attr-defined]
            key, kind = base_plus_ext(member.name)
            if not member.isfile() or key is None:
                continue
            held = images if kind.lower() in IMAGES else labels if kind == extension else None
            if held is not None and key in held:
                raise ValueError(f"{path.name}: {key} has two members for its {'image' if held is images else 'label'}")
            if held is images:
                images[key] = member.offset_data, member.size
            elif held is labels:
                stream = archive.extractfile(member)
                text = stream.read().decode() if stream else ""
                labels[key] = int(json.loads(text)[key_in_json] if key_in_json else text)
    if odd := sorted(images.keys() ^ labels.keys()):
        missing = "label" if odd[0] in images else "image"
        raise ValueError(f"{path.name}: {odd[0]} has no {missing} (.{extension})")
    for key, (offset, size) in images.items():
        yield number, offset, size, labels[key]
