"""The verb `gates`: what the gates of a run's blocks do over held-out samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sesurgery.diagnostics import fail
from sesurgery.networks import checkpoint
from sesurgery.pipeline.specs import catalogs
from sesurgery.training.data import data_of

if TYPE_CHECKING:
    import torch

    from sesurgery.networks.checkpoint import Run
    from sesurgery.training.data.base import Data, Images, Split
    from sesurgery.verification.gates import BlockGates

CLASSES, SAMPLES = 4, 50
"""As in the SE paper's figure 6."""


@dataclass(frozen=True)
class GateResult:
    """The gates of a run's blocks, or of an ONNX file, in network order; `left` are those that are not per channel."""

    source: Path
    classes: tuple[str, ...]
    blocks: tuple[BlockGates, ...]
    left: tuple[str, ...]


def gates(folder: Path, *, classes: int = CLASSES, samples: int = SAMPLES) -> GateResult:
    """Gates over the first `samples` held-out samples of each of the first `classes` classes.

    Raises SE402 if the run's plan puts in no block.
    """
    run = checkpoint.read(folder, catalogs())
    block_modules(run)
    return gates_of(run, data_of(run.spec), classes, samples)


def gates_of(run: Run, data: Data, classes: int, samples: int) -> GateResult:
    """The same of a run's network with the weights that it has now."""
    import numpy as np

    from sesurgery.verification.gate_values import gate_values
    from sesurgery.verification.gates import measure

    modules = block_modules(run)
    which = _chosen(data.held_out, classes, samples)
    seen = gate_values(run.network, modules, _parts(data.held_out.images, which))
    labels = data.held_out.labels[which].numpy()
    names = {int(label): data.classes[label] for label in np.unique(labels)}
    blocks = tuple(
        measure(site.key, values, labels, names, highest(site.block.options))
        for site in run.plan.sites
        if (values := seen[site.key]) is not None
    )
    return GateResult(
        run.folder, tuple(names.values()), blocks, tuple(key for key, found in seen.items() if found is None)
    )


def block_modules(run: Run) -> dict[str, str]:
    """The module of each block of a run's network by the block's key; raises SE402 if the plan puts in none."""
    if not run.plan.sites:
        raise fail("SE402", f"{run.folder.as_posix()} has no block of ours", "give a run whose spec inserts blocks")
    # A plan for a part of a network names its blocks within that part.
    inside = f"{part}." if (part := getattr(run.spec.model, "submodule", "")) else ""
    return {site.key: f"{inside}{site.module}" for site in run.plan.sites}


def _parts(images: Images, which: Sequence[int]) -> Iterator[torch.Tensor]:
    from sesurgery.training.evaluation import BATCH

    return (images[which[start : start + BATCH]] for start in range(0, len(which), BATCH))


def highest(block: Any) -> float | None:
    """The upper end of a block's gate: 1, 2 after an identity start; None if it has none."""
    if getattr(block, "gate", "sigmoid") == "relu":
        return None
    return 2.0 if getattr(block, "init", "default") == "identity" else 1.0


def _chosen(split: Split, classes: int, samples: int) -> list[int]:
    """The positions of the first samples of the first classes, in order."""
    labels = split.labels.tolist()
    wanted = dict.fromkeys(sorted(set(labels))[:classes], samples)
    chosen = []
    for position, label in enumerate(labels):
        if wanted.get(label, 0) > 0:
            wanted[label] -= 1
            chosen.append(position)
    return chosen
