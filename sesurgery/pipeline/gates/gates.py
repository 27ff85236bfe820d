"""The verb `gates`: what the gates of a run do over held-out samples: those of its blocks, and those it had before."""

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
    from sesurgery.planner import Plan
    from sesurgery.training.data.base import Data, Images, Split
    from sesurgery.verification.gate_values import Floats
    from sesurgery.verification.gates import BlockGates

CLASSES, SAMPLES = 4, 50
"""As in the SE paper's figure 6."""


@dataclass(frozen=True)
class GateResult:
    """The gates of a run, its blocks' first, or of an ONNX file, in network order; `left` are not per channel.

    `existing` are those of a run that are no blocks of ours: its network has them of its own.
    """

    source: Path
    classes: tuple[str, ...]
    blocks: tuple[BlockGates, ...]
    left: tuple[str, ...]
    existing: tuple[str, ...] = ()


def gates(folder: Path, *, classes: int = CLASSES, samples: int = SAMPLES) -> GateResult:
    """Gates over the first `samples` held-out samples of each of the first `classes` classes.

    Raises SE402 if the run's network has no channel gate, ours or its own.
    """
    run = checkpoint.read(folder, catalogs())
    return gates_of(run, data_of(run.spec), classes, samples)


def gates_of(run: Run, data: Data, classes: int, samples: int) -> GateResult:
    """The same of a run's network with the weights that it has now."""
    import numpy as np

    from sesurgery.verification.gate_values import gate_values
    from sesurgery.verification.gates import measure, seen_end

    which = _chosen(data.held_out, classes, samples)
    ours = gate_values(run.network, _modules(run), _parts(data.held_out.images, which)) if run.plan.sites else {}
    theirs = _existing(run, _parts(data.held_out.images, which))
    if not ours and not theirs:
        text = f"{run.folder.as_posix()} has no channel gate: no block of ours, and none that its network brings along"
        raise fail("SE402", text, "give a run whose spec inserts blocks, or whose network has gates")
    labels = data.held_out.labels[which].numpy()
    names = {int(label): data.classes[label] for label in np.unique(labels)}
    ends = {site.key: highest(site.block.options) for site in run.plan.sites}
    blocks, left = [], []
    for key, values in {**ours, **theirs}.items():
        # A part that is called several times for a sample has gates without a label.
        if values is None or len(values) != len(labels):
            left.append(key)
        else:
            blocks.append(measure(key, values, labels, names, ends[key] if key in ends else seen_end(values)))
    return GateResult(run.folder, tuple(names.values()), tuple(blocks), tuple(left), tuple(theirs))


def _existing(run: Run, batches: Iterator[torch.Tensor]) -> dict[str, Floats | None]:
    """The gates [N, C] that a run's network has outside our blocks; None of one that cannot be measured."""
    from sesurgery.networks.sources import surgeon_for
    from sesurgery.verification.existing_gates import existing_gates

    surgeon = surgeon_for(run.spec)
    drawing = surgeon.drawing(run.network, run.plan.called)
    ours = [site.module for site in run.plan.sites]
    return existing_gates(run.network, surgeon.part(run.network), drawing, ours, batches)


def block_modules(run: Run) -> dict[str, str]:
    """The module of each block of a run's network by the block's key; raises SE402 if the plan puts in none."""
    require_blocks(run.folder, run.plan)
    return _modules(run)


def require_blocks(folder: Path, plan: Plan) -> None:
    """Raise SE402 where a run has no block of ours, with what can be done about gates that its network brings along."""
    if not plan.sites:
        text = f"{folder.as_posix()} has no block of ours, and only these are folded here and left out of a spec"
        hint = "gates that its network brings along are folded by `export: {lowering: [constant_gates]}` in its spec"
        raise fail("SE402", text, f"{hint}, and taken out by a rule `remove: any`, `within:` the modules named above")


def _modules(run: Run) -> dict[str, str]:
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
