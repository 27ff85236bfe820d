"""The verb `data fetch`: a data set from where it is published to this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sesurgery.diagnostics import SesurgeryError, fail, first_line
from sesurgery.training.data import DATASETS
from sesurgery.training.data.reading.on_disk import OnDisk


@dataclass(frozen=True)
class FetchResult:
    """A downloaded data set: its folder, and the number of training and held-out samples."""

    folder: Path
    train: int
    held_out: int


def fetch(name: str, root: str = "data") -> FetchResult:
    """Download a data set into `root`, compared with its published checksum; what is there already stays.

    Raises SE105 for a name that there is none of, and SE503 if there is nothing to download, or no network.
    """
    plugin: Any = DATASETS.load(name)
    if not issubclass(plugin, OnDisk):
        raise fail("SE503", f"there is nothing to fetch for {name!r}: it needs no files of its own")
    wanted = plugin(root=root)
    try:
        wanted.download()
    except SesurgeryError:
        raise
    # URLError is an OSError; a wrong checksum is a RuntimeError.
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        text = f"{wanted.title} could not be downloaded into {wanted.folder.as_posix()}/: {first_line(error)}"
        hint = f"without a network, bring the files here by hand; expected is {wanted.expected}"
        raise fail("SE503", text, hint) from error
    return FetchResult(wanted.folder, len(wanted.opened(train=True)), len(wanted.opened(train=False)))
