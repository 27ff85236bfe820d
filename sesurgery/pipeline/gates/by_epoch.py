"""The gates of a run's blocks over its training: before it, after the epochs that were kept, and at its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sesurgery.diagnostics import fail
from sesurgery.networks import checkpoint
from sesurgery.pipeline.gates.gates import CLASSES, SAMPLES, gates_of
from sesurgery.pipeline.specs import catalogs
from sesurgery.training.begun import APPLIED, TRAIN
from sesurgery.training.data import data_of
from sesurgery.training.epochs import epochs_of
from sesurgery.training.history import best_of, kept_epochs
from sesurgery.workspace.run_files import WEIGHTS

if TYPE_CHECKING:
    from sesurgery.networks.checkpoint import Run
    from sesurgery.verification.gates import BlockGates


@dataclass(frozen=True)
class GatesByEpoch:
    """The gates of each block after each of these epochs, on the same samples; epoch 0 is before training."""

    folder: Path
    epochs: tuple[tuple[int, tuple[BlockGates, ...]], ...]


def gates_by_epoch(folder: Path, *, classes: int = CLASSES, samples: int = SAMPLES) -> GatesByEpoch:
    """The gates of all weights that a training has kept.

    Raises SE402 if the run was never trained, and SE401 if weights are not those of its network.
    """
    from sesurgery.networks.weights import load_weights

    run = checkpoint.read(folder, catalogs())
    data = data_of(run.spec)
    found = []
    for epoch, weights in _kept(run).items():
        load_weights(run.network, weights)
        found.append((epoch, gates_of(run, data, classes, samples).blocks))
    # A block whose gate did not show after one of the epochs has no line.
    shown = set.intersection(*({block.key for block in blocks} for _, blocks in found))
    return GatesByEpoch(
        folder, tuple((epoch, tuple(block for block in blocks if block.key in shown)) for epoch, blocks in found)
    )


def _kept(run: Run) -> dict[int, Path]:
    """The files of weights by epoch, in order."""
    details, weights = run.manifest.details, run.folder / WEIGHTS
    # A trial of a study may have its weights from another one's training.
    trained_in = run.manifest.locate(weights, details.trained_in).resolve() if details.trained_in else run.folder
    first, kept = trained_in / APPLIED, kept_epochs(trained_in / TRAIN)
    if not kept and details.top1 is None:
        text = f"{run.folder.as_posix()} was not trained: its gates have not moved"
        raise fail(
            "SE402", text, "train it; with `train: {keep_epochs: 1}` in its spec, every epoch is there to look at"
        )
    files = {0: first} if first.is_file() else {}
    # A table of another length is of a later training than that of the run's weights.
    if (history := epochs_of(trained_in, details.epochs)) and details.top1 is not None:
        last = best_of(history) if run.spec.train.keep == "best" else history[-1]
        assert last is not None
        files[last.epoch] = weights
    elif not kept:
        files[details.epochs or 0] = weights
    return dict(sorted({**files, **kept}.items()))
