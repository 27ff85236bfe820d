"""The verbs `train` and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sesurgery.artifacts import alone
from sesurgery.diagnostics import fail
from sesurgery.networks import checkpoint
from sesurgery.networks.checkpoint import Run
from sesurgery.pipeline.specs import catalogs
from sesurgery.planner import Plan
from sesurgery.serving import interface
from sesurgery.spec import Spec
from sesurgery.spec.train import Train
from sesurgery.talk import Silent, Talk
from sesurgery.training import begun
from sesurgery.training.begun import TRAIN
from sesurgery.training.data import data_of
from sesurgery.training.history import Epoch, epochs_done
from sesurgery.training.pace import Pace
from sesurgery.training.recipes.stopping import finished
from sesurgery.training.teacher import teacher_of
from sesurgery.workspace import relative, run_files

if TYPE_CHECKING:
    from sesurgery.training.loop import FitResult
    from sesurgery.verification.scores import Scores


@dataclass(frozen=True)
class TrainRequest:
    """How a run is trained.

    ^C and SIGTERM leave a checkpoint, from which `resume` continues. `restart` discards an earlier training. `split`
    divides each batch into that many parts with gradient accumulation. `watch` is called after each epoch; an exception
    that it raises ends the training.
    """

    folder: Path
    resume: bool = False
    restart: bool = False
    split: int = 1
    watch: Callable[[Epoch], None] | None = None
    talk: Talk = field(default_factory=Silent)


@dataclass(frozen=True)
class TrainResult:
    """A trained run, or one that was interrupted and can be resumed; of several processes, one `leads`."""

    folder: Path
    result: FitResult
    epochs: int
    leads: bool = True


def train(request: TrainRequest) -> TrainResult:
    """Train a run's network from its initial weights, and write the trained ones back.

    Raises SE405 if the run was trained already and neither `resume` nor `restart` is set, or if another process is
    training it, and SE502 if the batch cannot be split into equal parts.
    """
    from sesurgery.training.machine import is_main_process

    if not is_main_process():
        return _train(request)
    if not (request.folder / run_files.WEIGHTS).is_file():
        checkpoint.read_spec(request.folder, catalogs())
    with alone(request.folder, "training"):
        return _train(request)


def _train(request: TrainRequest) -> TrainResult:
    from sesurgery.training.loop import FitRequest, fit
    from sesurgery.training.machine import first_alone

    run = checkpoint.read_empty(request.folder, catalogs())
    recipe = _in_parts(run.spec.train, request.split)
    data = data_of(run.spec)
    with first_alone() as first:
        applied = run.manifest.details.applied
        if first:
            interface.write_for(request.folder, run.spec, data)
            applied = applied if request.resume else begun.start(run, restart=request.restart)
        elif not request.resume:
            begun.load(run)
    pace = Pace(recipe.epochs, len(data.train), epochs_done(request.folder / TRAIN) if request.resume else 0)
    progress = _Printed(request.talk, pace, request.watch)
    result = fit(
        FitRequest(
            run.network,
            data,
            recipe,
            request.folder / TRAIN,
            resume=request.resume,
            progress=progress.after_epoch,
            heartbeat=progress.after_batch,
            blocks=block_paths(run.spec, run.plan),
            teacher=teacher_of(run, catalogs()),
            spec_digest=run.manifest.spec_digest,
        )
    )
    if first and (not result.interrupted or finished(result.epochs, recipe)):
        _save(run, result, applied)
    return TrainResult(request.folder, result, recipe.epochs, first)


def block_paths(spec: Spec, planned: Plan) -> tuple[str, ...]:
    """The paths of a plan's blocks in the network that is trained."""
    # A plan for a part of a network names its blocks within that part.
    inside = f"{part}." if (part := getattr(spec.model, "submodule", "")) else ""
    return tuple(f"{inside}{site.module}" for site in planned.sites)


@dataclass(frozen=True)
class _Printed:
    """Prints a line per epoch and moves the progress bar per batch."""

    talk: Talk
    pace: Pace
    watch: Callable[[Epoch], None] | None

    def after_epoch(self, epoch: Epoch) -> None:
        epochs, rate = self.pace.epochs, self.pace.images / max(epoch.seconds, 1e-3)
        left = self.pace.after_epoch(epoch.epoch, epoch.seconds)
        self.talk.say(
            f"epoch {epoch.epoch:>{len(str(epochs))}}/{epochs}  loss {epoch.train_loss:.4f}  "
            f"held-out top-1 {epoch.held_out_top1:.2%}  {epoch.seconds:.1f} s"
            f"  {rate:,.0f} images/s{left and '  '}{left}"
        )
        if self.watch is not None:
            self.watch(epoch)

    def after_batch(self, phase: str, done: int, total: int) -> None:
        what = "training" if phase == "train" else "evaluating"
        self.talk.progress(what, done, total, self.pace.after_batch(phase, done, total))


def _save(run: Run, result: FitResult, applied: str | None) -> None:
    """Write the trained weights into the run; `applied` is the digest of its initial ones."""
    weights = run.folder / run_files.WEIGHTS
    origin = run.manifest.spec_file(weights)
    changes = {
        "spec": None if origin is None else relative(origin, weights),
        "top1": result.top1,
        "epochs": len(result.epochs),
        "applied": applied or run.manifest.sha256,
    }
    details = run.manifest.details.model_copy(update=changes)
    # The command names the spec: a run with damaged files can only be made again from it.
    made = (origin or run.folder).as_posix()
    command = f"sesurgery train {made}"
    if details.began is not None:
        other = run.manifest.locate(weights, details.began.path).parent.as_posix()
        command = f"sesurgery apply {made} --weights {other} && sesurgery train"
    checkpoint.save(run.folder, run.network, run.spec, run.plan, command, details)


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
