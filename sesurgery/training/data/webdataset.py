"""Tar shards in the form of WebDataset, local or fetched from urls; read in any order, as every data set here is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from sesurgery.spec.code import Command
from sesurgery.training.data.reading.on_disk import Photographs

if TYPE_CHECKING:
    from sesurgery.training.data.reading.shards import Shards


@dataclass(frozen=True)
class WebDataset(Photographs):
    """Shards of `KEY.jpg` (or png, webp) with `KEY.cls`, the class index as text.

    Needs `pip install sesurgery[webdataset]`. `train` and `held_out` name shards: files under `root`, `http://` and
    `https://` urls, or `pipe:` and a shell command that writes one. Braces (`train-{000..146}.tar`) stand for several,
    and of files globs do. What is not a file is fetched once, into `root/shards`. `label: json:KEY` takes the class
    index from a JSON member. `names` is a file under `root` with a class name a line.
    """

    train: Command = "train-*.tar"
    held_out: Command = "val-*.tar"
    label: Annotated[str, Field(pattern=r"^\w+$|^json:.+$")] = "cls"
    names: str | None = None

    title: ClassVar[str] = "the shards"
    expected: ClassVar[str] = "tar files for training and some to hold out, with an image and a label for each key"

    own_files: ClassVar[str] = f"{Photographs.own_files}, and `train:` and `held_out:` to the names of its shards"

    def open(self, *, train: bool) -> Shards:
        from sesurgery.training.data.reading.shards import Shards, files

        given = self.train if train else self.held_out
        return Shards(files(given, self.folder), self.label)

    def classes(self, source: Shards) -> list[str]:
        """The names in the file of names, or the indices up to the largest in the training shards."""
        if self.names is None:
            return [str(index) for index in range(int(source.targets.max()) + 1)]
        lines = (self.folder / self.names).read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip()]


EXAMPLES = (WebDataset(), WebDataset(train="https://example.com/train-{000..146}.tar", label="json:label"))
