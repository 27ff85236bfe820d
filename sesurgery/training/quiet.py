"""Lightning speaks through loggers and warnings; a library that prints nothing has to hold it back."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from sesurgery.muting import muted

LOGGERS = (
    "lightning.pytorch",
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric",
    "lightning.fabric.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
)


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hold back Lightning's banner, tips and hints for the time of the block; its errors still come through."""
    with warnings.catch_warnings(), muted(*LOGGERS):
        warnings.filterwarnings("ignore", module=r"lightning\.")
        yield
