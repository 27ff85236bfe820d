"""What an earlier training left in a run. The next training always starts from the weights that `apply` wrote."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sesurgery import temporaries
from sesurgery.artifacts import digest_file, move_into_place
from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.networks.checkpoint import Run
from sesurgery.training.history import CHECKPOINT
from sesurgery.training.recipes.stopping import finished
from sesurgery.workspace import require_intact
from sesurgery.workspace.run_files import WEIGHTS

TRAIN = "train"
APPLIED = "applied.safetensors"
"""The weights that training started from, kept beside those it ended with."""


def start(run: Run, *, restart: bool) -> str:
    """Load the weights that `apply` wrote into a run's network, keep a copy beside the run, and return their digest.

    Raises SE405 if there is a training that would be lost, unless `restart`; SE402 if the weights are gone.
    """
    if not restart:
        _require_untrained(run)
    kept, weights = run.folder / APPLIED, run.folder / WEIGHTS
    if _trained(run):
        digest = run.manifest.details.applied
        if digest is None or not kept.is_file() or digest_file(kept) != digest:
            text = f"{kept.as_posix()}, the weights that {run.folder.as_posix()} was trained from, are not there"
            raise fail("SE402", text, f"make a run of its own: {run.manifest.command}")
    else:
        digest = require_intact(weights).sha256
        _keep(weights, kept)
    load(run)
    return digest


def load(run: Run) -> None:
    """Load the weights that are kept beside a run, once it was started, into its network."""
    from safetensors.torch import load_file

    run.network.load_state_dict(load_file(run.folder / APPLIED))


def _require_untrained(run: Run) -> None:
    from sesurgery.training import checkpoint

    folder = run.folder.as_posix()
    saved = run.folder / TRAIN / CHECKPOINT
    again = "--restart starts again"
    if saved.is_file():
        try:
            history, recipe = checkpoint.read(saved).history, run.spec.train
        except SesurgeryError as error:
            text = f"{folder} holds a training that was stopped, and {error.diagnostics[0].message}"
            raise fail("SE405", text, f"{again} and deletes it") from error
        if not finished(history, recipe) or not _trained(run):
            done = f"stopped after {len(history)} of {recipe.epochs} epochs"
            what = "ended before its weights were written" if finished(history, recipe) else done
            hint = f"continue with `sesurgery train {folder} --resume`; {again} and deletes it"
            raise fail("SE405", f"{folder} holds a training that was {what}", hint)
    if (top1 := run.manifest.details.top1) is not None:
        text = f"{folder} is trained already: {run.manifest.details.epochs} epochs, held-out top-1 {top1:.2%}"
        raise fail("SE405", text, f"{again} from the initial weights; `sesurgery train SPEC` makes another run")


def _trained(run: Run) -> bool:
    return run.manifest.details.top1 is not None


def _keep(weights: Path, kept: Path) -> None:
    with temporaries.folder(kept) as aside:
        try:
            # Weights are never written to, only replaced: another name costs nothing.
            os.link(weights, aside / APPLIED)
        except OSError:
            shutil.copyfile(weights, aside / APPLIED)
        move_into_place(aside / APPLIED, kept)
