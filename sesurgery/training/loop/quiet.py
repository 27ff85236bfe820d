"""Silences Lightning's loggers and warnings."""

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
    """Suppress Lightning's banner, tips and hints within the block; errors still come through."""
    with warnings.catch_warnings(), muted(*LOGGERS):
        warnings.filterwarnings("ignore", module=r"lightning\.")
        yield
