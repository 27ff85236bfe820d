"""Grey images in IDX files, plain or gzipped, by torchvision's own readers."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

from torchvision.datasets import mnist
from torchvision.datasets.utils import download_url

from sesurgery.artifacts import writing
from sesurgery.training.data.reading.images import Arrays


def read(folders: Sequence[Path], *, train: bool) -> Arrays:
    """A split from the first of `folders` that holds one of its files.

    Raises FileNotFoundError where none does, and whatever the readers raise for files that are not IDX.
    """
    start = "train" if train else "t10k"
    images, labels = f"{start}-images-idx3-ubyte", f"{start}-labels-idx1-ubyte"
    folder = next((folder for folder in folders if _file(folder, images) or _file(folder, labels)), None)
    if folder is None:
        raise FileNotFoundError(f"there is no {images} or {images}.gz in {', '.join(map(str, folders))}")
    pixels, targets = (
        _parsed(folder, name, reader)
        for name, reader in ((images, mnist.read_image_file), (labels, mnist.read_label_file))
    )
    return Arrays(pixels.numpy(), targets.numpy())


def fetch(of: type[mnist.MNIST], folder: Path) -> None:
    """Download what is missing or damaged of a set below `folder`, compare checksums, and unpack it.

    torchvision's own takes a file that was cut off in unpacking for a whole one, and never mends it.
    """
    raw = folder / of.__name__ / "raw"
    for archive, md5 in of.resources:
        plain = raw / archive.removesuffix(".gz")
        if plain.is_file() and _reads(plain):
            continue
        _download(of.mirrors, archive, raw, md5)
        with writing(plain) as temporary, gzip.open(raw / archive) as packed, temporary.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)


def _reads(plain: Path) -> bool:
    try:
        _parsed(plain.parent, plain.name, mnist.read_image_file if "images" in plain.name else mnist.read_label_file)
    except ValueError:
        return False
    return True


def _download(mirrors: Sequence[str], archive: str, folder: Path, md5: str) -> None:
    """From the first mirror that gives it; raises RuntimeError, or what the last one raised."""
    for mirror in mirrors[:-1]:
        with contextlib.suppress(RuntimeError, URLError):
            download_url(f"{mirror}{archive}", folder, archive, md5)
            return
    download_url(f"{mirrors[-1]}{archive}", folder, archive, md5)


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _parsed(folder: Path, name: str, reader: Callable[[str], Any]) -> Any:
    path = _file(folder, name)
    if path is None:
        raise FileNotFoundError(f"{folder / name} is missing")
    try:
        if path.suffix != ".gz":
            return reader(str(path))
        # The readers take no compressed file.
        with tempfile.NamedTemporaryFile() as plain, gzip.open(path) as packed:
            shutil.copyfileobj(packed, plain)
            plain.flush()
            return reader(plain.name)
    except (AssertionError, KeyError, EOFError, RuntimeError, ValueError, TypeError, OSError) as error:
        raise ValueError(f"{path} is not an IDX file of this kind, or is cut off: {error!r}") from error
