"""The epochs behind a run's weights."""

from __future__ import annotations

import csv
from pathlib import Path

from sesurgery.artifacts import read_small
from sesurgery.diagnostics import fail
from sesurgery.training.begun import TRAIN
from sesurgery.training.history import Epoch, from_csv


def epochs_of(folder: Path, count: int | None) -> tuple[Epoch, ...]:
    """The `count` epochs of the training that made the run's weights; empty if they were not recorded.

    Raises SE401 if the table holds something else.
    """
    table = folder / TRAIN / "metrics.csv"
    if not table.is_file():
        return ()
    try:
        epochs = from_csv(read_small(table))
    except (KeyError, TypeError, ValueError, OSError, csv.Error) as error:
        why = f"{type(error).__name__}: {error}"
        text = f"{table.as_posix()} is not the table of epochs that training wrote: {why}"
        raise fail("SE401", text, f"write it again: `sesurgery train {folder.as_posix()} --resume`") from error
    # A table of another length is of a later, unfinished training; the weights are of the one before.
    return epochs if len(epochs) == count else ()
