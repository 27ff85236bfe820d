"""The epochs of a training run, as values and as a table."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKPOINT = "last.ckpt"
"""The last state that was saved, in the folder of a training."""
BEST = "best.safetensors"
"""The weights after the epoch with the highest held-out top-1, beside it."""
EPOCHS = "epochs"
"""The folder of the weights after every so many epochs (`train: keep_epochs:`), beside it."""


TABLE = "metrics.jsonl"
"""A line an epoch, beside them."""


@dataclass(frozen=True)
class Epoch:
    """One finished epoch, counted from 1.

    Losses are mean cross-entropies in nats, the training one with label smoothing; `held_out_top1` is a fraction;
    `lr` is the learning rate of the epoch's last step; `seconds` include the evaluation.
    """

    epoch: int
    train_loss: float
    held_out_top1: float
    held_out_loss: float
    lr: float
    seconds: float


@dataclass(frozen=True)
class Partial:
    """How far an unfinished epoch is: its batches done, the sums behind their mean loss, and the seconds they took."""

    batches: int
    loss: float
    weight: float
    seconds: float


def epochs_done(folder: Path) -> int:
    """How many epochs the table of a training's folder has."""
    table = folder / TABLE
    return len(table.read_text(encoding="utf-8").splitlines()) if table.is_file() else 0


def best_of(epochs: Sequence[Epoch]) -> Epoch | None:
    """The epoch with the highest held-out top-1, the first of equals; None if there is none."""
    return max(epochs, key=lambda epoch: epoch.held_out_top1, default=None)


def position_of(history: Sequence[Epoch], partial: Partial | None) -> str:
    """Where in a training that is, in words."""
    if partial is not None:
        return f"after batch {partial.batches} of epoch {len(history) + 1}"
    return f"after epoch {len(history)}" if history else "before the first epoch"


def epoch_file(training: Path, epoch: int) -> Path:
    """Where a training keeps the weights after an epoch."""
    return training / EPOCHS / f"{epoch:04}.safetensors"


def kept_epochs(training: Path) -> dict[int, Path]:
    """The epochs whose weights a training keeps, in order."""
    found = (training / EPOCHS).glob("*.safetensors")
    return dict(sorted((int(path.stem), path) for path in found if path.stem.isdecimal()))


def to_csv(epochs: Sequence[Epoch]) -> str:
    """The epochs as CSV: a header of field names and a row an epoch."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(Epoch))
    writer.writerows(dataclasses.astuple(epoch) for epoch in epochs)
    return stream.getvalue()


def to_json_lines(epochs: Sequence[Epoch]) -> str:
    """The epochs as JSON, an object a line."""
    return "".join(f"{json.dumps(dataclasses.asdict(epoch))}\n" for epoch in epochs)


def from_csv(text: str) -> tuple[Epoch, ...]:
    """The epochs in a table that `to_csv` wrote; KeyError, TypeError, ValueError or csv.Error where it is none."""
    # With PEP 563 a field's type is its name.
    kinds = {field.name: int if field.type == "int" else float for field in dataclasses.fields(Epoch)}
    rows = csv.DictReader(io.StringIO(text, newline=""))
    found = tuple(Epoch(**{name: kind(row[name]) for name, kind in kinds.items()}) for row in rows)  # type: ignore[arg-type]
    for epoch in found:
        if not 0 <= epoch.held_out_top1 <= 1:
            raise ValueError(f"held_out_top1 of epoch {epoch.epoch} is {epoch.held_out_top1}, no fraction")
    return found
