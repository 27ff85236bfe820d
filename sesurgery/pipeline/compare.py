"""The verb `compare`: two runs on the same held-out samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sesurgery.diagnostics import fail
from sesurgery.networks import checkpoint
from sesurgery.networks.run_files import WEIGHTS
from sesurgery.pipeline.data import data_of
from sesurgery.pipeline.epochs import epochs_of
from sesurgery.pipeline.specs import catalogs
from sesurgery.workspace import RunManifest, read_manifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sesurgery.training.data.base import Data
    from sesurgery.training.history import Epoch
    from sesurgery.verification.comparison import Comparison


def compare(first: Path, second: Path, accuracy: float | None = None) -> Comparison:
    """The first run against the second; `accuracy` (0 to 1) is the one to which epochs are counted.

    Raises SE501 where the two do not hold out the same samples.
    """
    from sesurgery.verification import comparison

    (ours, data, epochs), (theirs, other, other_epochs) = _answers(first), _answers(second)
    same = data.held_out.labels.equal(other.held_out.labels)
    if (data.origin, data.classes) != (other.origin, other.classes) or not same:
        raise fail(
            "SE501",
            f"the runs do not hold out the same samples: {first.as_posix()} has {len(data.held_out)} of {data.origin}, "
            f"{second.as_posix()} has {len(other.held_out)} of {other.origin}",
            "give both specs the same `train: data:` and train again",
        )
    return comparison.compare(ours, theirs, (epochs, other_epochs), accuracy)


def learning_curve(folder: Path) -> tuple[Epoch, ...]:
    """The epochs behind a run's weights, in order."""
    checkpoint.read_spec(folder, catalogs())
    return epochs_of(folder, read_manifest(folder / WEIGHTS, RunManifest).details.epochs)


def _answers(folder: Path) -> tuple[NDArray[np.bool_], Data, tuple[Epoch, ...]]:
    """Which held-out samples a run's weights answer right, its data, and its epochs."""
    from sesurgery.training.evaluation import split_logits

    run = checkpoint.read(folder, catalogs())
    data = data_of(run.spec)
    outputs = split_logits(run.network, data.held_out)
    return (outputs.argmax(1) == data.held_out.labels).numpy(), data, epochs_of(folder, run.manifest.details.epochs)
