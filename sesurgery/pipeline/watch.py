"""`evaluate --watch`: each checkpoint of a run in training, as it appears."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sesurgery.networks import checkpoint
from sesurgery.pipeline.specs import catalogs
from sesurgery.training.begun import TRAIN
from sesurgery.training.data import data_of
from sesurgery.training.history import CHECKPOINT, position_of
from sesurgery.training.recipes.stopping import finished

if TYPE_CHECKING:
    from sesurgery.verification.scores import Scores


def watch(folder: Path, seconds: float = 2.0) -> Iterator[tuple[str, Scores]]:
    """Where the training is, and the scores of its weights there; ends with the training.

    Looks every so many `seconds`. A checkpoint that is replaced before it was looked at is passed over.
    """
    from sesurgery.training import checkpoint as saved_state
    from sesurgery.training.evaluation import split_logits
    from sesurgery.verification.scores import scores

    run = checkpoint.read_empty(folder, catalogs())
    data, file, seen = data_of(run.spec), folder / TRAIN / CHECKPOINT, None
    while True:
        stamp = (file.stat().st_ino, file.stat().st_mtime_ns) if file.is_file() else None
        if stamp is None or stamp == seen:
            time.sleep(seconds)
            continue
        saved, seen = saved_state.read(file), stamp
        run.network.load_state_dict(saved.result)
        outputs = split_logits(run.network, data.held_out)
        yield position_of(saved.history, saved.partial), scores(outputs, data.held_out.labels, data.classes)
        if finished(saved.history, run.spec.train):
            return
