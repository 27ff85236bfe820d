"""The network whose answers a run learns: itself as it was applied, without its blocks, or another run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sesurgery.diagnostics import fail
from sesurgery.networks import checkpoint
from sesurgery.networks.checkpoint import Run
from sesurgery.spec import Catalogs
from sesurgery.training.begun import APPLIED

if TYPE_CHECKING:
    from torch import nn

PLAIN = "plain"


def teacher_of(run: Run, catalogs: Catalogs) -> nn.Module | None:
    """The teacher of a run whose applied weights are kept beside it; None if its recipe has none.

    Raises SE502 if the surgery took parts out, so that there is no untouched network in the run.
    """
    wanted = run.spec.train.distill
    if wanted is None:
        return None
    if wanted.teacher != PLAIN:
        return checkpoint.read(Path(wanted.teacher), catalogs).network
    import torch
    from safetensors.torch import load_file

    from sesurgery.networks import sources

    with torch.random.fork_rng(devices=[]):
        network = sources.build(run.spec, weights=False, beside=run.beside)
    applied = load_file(run.folder / APPLIED)
    own = network.state_dict()
    if missing := [key for key in own if key not in applied or own[key].shape != applied[key].shape]:
        text = f"the untouched network cannot be the teacher: the surgery took {missing[0]} and {len(missing) - 1} more"
        raise fail("SE502", text, "train the plain network, and name its run under `distill: teacher:`")
    network.load_state_dict({key: applied[key] for key in own})
    return network
