"""The verbs `train` and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sesurgery.artifacts import alone
from sesurgery.diagnostics import fail
from sesurgery.networks import checkpoint, run_files
from sesurgery.pipeline import begun
from sesurgery.pipeline.begun import TRAIN
from sesurgery.pipeline.data import data_of, write_interface
from sesurgery.pipeline.specs import catalogs
from sesurgery.pipeline.talk import Silent, Talk
from sesurgery.pipeline.teacher import teacher_of
from sesurgery.spec.train import Train
from sesurgery.training.history import Epoch
from sesurgery.training.recipes.stopping import finished
from sesurgery.workspace import relative

if TYPE_CHECKING:
    from sesurgery.training.loop import FitResult
    from sesurgery.verification.scores import Scores


@dataclass(frozen=True)
class TrainResult:
    """A trained run, or one that was interrupted and can be resumed; of several processes, one `leads`."""

    folder: Path
    result: FitResult
    epochs: int
    leads: bool = True


def train(
    folder: Path,
    *,
    resume: bool = False,
    restart: bool = False,
    split: int = 1,
    talk: Talk | None = None,
    watch: Callable[[Epoch], None] | None = None,
) -> TrainResult:
    """Train a run's network from the weights that were applied, and write the trained ones back.

    ^C and SIGTERM leave a checkpoint for `resume`. `restart` gives up what an earlier training left; without one of the
    two, raises SE405 where there is any. `split` computes each batch in so many parts, in steps of as many samples;
    raises SE502 where they would not be equal. Raises SE405, too, where another process trains the run. `watch` is
    called after each epoch, and what it raises ends the training.
    """
    from sesurgery.training.machine import is_main_process

    if not is_main_process():
        return _train(folder, resume, restart, split, talk or Silent(), watch)
    if not (folder / run_files.WEIGHTS).is_file():
        checkpoint.read_spec(folder, catalogs())
    with alone(folder, "training"):
        return _train(folder, resume, restart, split, talk or Silent(), watch)


def _train(
    folder: Path, resume: bool, restart: bool, split: int, talk: Talk, watch: Callable[[Epoch], None] | None
) -> TrainResult:
    from sesurgery.training.loop import fit
    from sesurgery.training.machine import is_main_process

    run = checkpoint.read_empty(folder, catalogs())
    recipe = _in_parts(run.spec.train, split)

    data = data_of(run.spec)

    def after_epoch(epoch: Epoch) -> None:
        rate = len(data.train) / max(epoch.seconds, 1e-3)
        left = time_left(epoch.seconds * (recipe.epochs - epoch.epoch))
        talk.say(
            f"epoch {epoch.epoch:>{len(str(recipe.epochs))}}/{recipe.epochs}  loss {epoch.train_loss:.4f}  "
            f"held-out top-1 {epoch.held_out_top1:.2%}  {epoch.seconds:.1f} s"
            f"  {rate:,.0f} images/s{left}"
        )
        if watch is not None:
            watch(epoch)

    def after_batch(phase: str, done: int, total: int) -> None:
        talk.progress("training" if phase == "train" else "evaluating", done, total)

    # A plan for a part of a network names its blocks within that part.
    inside = f"{part}." if (part := getattr(run.spec.model, "submodule", "")) else ""
    first = is_main_process()
    if first:
        write_interface(folder, run.spec, data)
    applied = run.manifest.details.applied if resume else begun.start(run, restart=restart)
    result = fit(
        run.network,
        data,
        recipe,
        folder / TRAIN,
        resume=resume,
        progress=after_epoch,
        heartbeat=after_batch,
        blocks=tuple(f"{inside}{site.module}" for site in run.plan.sites),
        teacher=teacher_of(run),
    )
    if first and (not result.interrupted or finished(result.epochs, recipe)):
        origin = run.manifest.spec_file(folder / run_files.WEIGHTS)
        changes = {
            "spec": None if origin is None else relative(origin, folder / run_files.WEIGHTS),
            "top1": result.top1,
            "epochs": len(result.epochs),
            "applied": applied or run.manifest.sha256,
        }
        details = run.manifest.details.model_copy(update=changes)
        # The command names the spec: a run with damaged files can only be made again from it.
        command = f"sesurgery train {(origin or folder).as_posix()}"
        checkpoint.save(folder, run.network, run.spec, run.plan, command, details)
    return TrainResult(folder, result, recipe.epochs, first)


def time_left(seconds: float) -> str:
    """What is said of the time that a training takes yet; nothing at its end."""
    if not seconds:
        return ""
    minutes = round(seconds / 60)
    if not minutes:
        return f"  {seconds:.0f} s left"
    return f"  {minutes // 60} h {minutes % 60} min left" if minutes >= 60 else f"  {minutes} min left"


def _in_parts(recipe: Train, parts: int) -> Train:
    if recipe.batch_size % parts:
        text = f"a batch of {recipe.batch_size} has no {parts} equal parts"
        raise fail("SE502", text, "take a divisor of `batch_size` as --split")
    sizes = {"batch_size": recipe.batch_size // parts, "accumulate": recipe.accumulate * parts}
    return recipe.model_copy(update=sizes)


def evaluate(folder: Path) -> Scores:
    """The scores of a run's weights on the held-out samples."""
    from sesurgery.training.evaluation import split_logits
    from sesurgery.verification.scores import scores

    run = checkpoint.read(folder, catalogs())
    data = data_of(run.spec)
    outputs = split_logits(run.network, data.held_out)
    return scores(outputs, data.held_out.labels, data.classes)
