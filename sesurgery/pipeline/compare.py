"""The verb `compare`: two runs on the same held-out samples, or two recipes trained from the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sesurgery.diagnostics import fail
from sesurgery.networks import checkpoint
from sesurgery.pipeline.specs import catalogs
from sesurgery.training.data import data_of
from sesurgery.training.epochs import epochs_of
from sesurgery.workspace import RunManifest, read_manifest
from sesurgery.workspace.run_files import WEIGHTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sesurgery.studies.over_seeds import OverSeeds
    from sesurgery.training.data.base import Data
    from sesurgery.training.history import Epoch
    from sesurgery.verification.comparison import Comparison


def compare(first: Path, second: Path, accuracy: float | None = None) -> Comparison:
    """The first run against the second; `accuracy` (0 to 1) is the one to which epochs are counted.

    Raises SE501 if the two do not hold out the same samples.
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


def compare_seeds(first: Sequence[Path], second: Sequence[Path], accuracy: float | None = None) -> OverSeeds:
    """The runs of one recipe against those of another, paired by the seed of their training.

    Raises SE501 where the two have not the same seeds, each once, or do not hold out the same samples.
    """
    from sesurgery.studies.over_seeds import over_seeds

    ours, theirs = _by_seed(first), _by_seed(second)
    if ours.keys() != theirs.keys():
        raise fail(
            "SE501",
            f"the runs were not trained from the same seeds: the first {_seeds(ours)}, the second {_seeds(theirs)}",
            "leave out the runs that have no partner, or train one with the same 'train: seed:'",
        )
    return over_seeds({seed: compare(ours[seed], theirs[seed], accuracy) for seed in sorted(ours)})


def _by_seed(folders: Sequence[Path]) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for folder in folders:
        seed = checkpoint.read_spec(folder, catalogs()).train.seed
        if seed in found:
            raise fail(
                "SE501",
                f"{found[seed].as_posix()} and {folder.as_posix()} were both trained from seed {seed}",
                "name one run for each seed",
            )
        found[seed] = folder
    return found


def _seeds(runs: dict[int, Path]) -> str:
    return "from " + ", ".join(str(seed) for seed in sorted(runs))


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
