"""Training as one function: a model, data and a recipe in; the trained model, a checkpoint and its history out."""

from __future__ import annotations

import signal
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import SIGTERMException
from safetensors.torch import load_file
from torch import nn

from sesurgery.diagnostics import fail, first_line
from sesurgery.spec.train import Train
from sesurgery.training import checkpoint
from sesurgery.training.data.base import Data
from sesurgery.training.evaluation import in_mode, logits
from sesurgery.training.history import Epoch, best_of
from sesurgery.training.loop.interruption import Interrupted, Interruption
from sesurgery.training.loop.module import Classifier
from sesurgery.training.loop.quiet import quiet_lightning
from sesurgery.training.loop.record import Heartbeat, Progress, Recorder
from sesurgery.training.loop.saving import Straight
from sesurgery.training.loop.speed import gates_in_fp32, precision
from sesurgery.training.loop.trouble import as_diagnostic
from sesurgery.training.machine import devices, process_group, reproducible
from sesurgery.training.recipes.stopping import finished


@dataclass(frozen=True)
class FitResult:
    """The finished epochs, with those before a resume; `signal` is the one that came to stop the training, if any.

    A signal that came after the last epoch is reported too.
    """

    epochs: tuple[Epoch, ...]
    signal: int | None
    checkpoint: Path
    metrics: Path
    keep: Literal["last", "best"] = "last"

    @property
    def interrupted(self) -> bool:
        """Whether ^C, SIGTERM or SIGHUP came."""
        return self.signal is not None

    @property
    def top1(self) -> float | None:
        """Held-out top-1 of the epoch that is kept, a fraction; None before the first one is done."""
        kept = best_of(self.epochs) if self.keep == "best" else self.epochs[-1] if self.epochs else None
        return None if kept is None else kept.held_out_top1


@dataclass(frozen=True)
class FitRequest:
    """A model to train in place on data by a recipe; the checkpoint and the history go to `folder`.

    `resume` continues from the folder's `last.ckpt`. `progress` is called after each epoch, `heartbeat` after each
    batch with ("train" | "evaluate", done, total). `blocks` are the paths of inserted blocks in the model, for recipes
    that treat them differently. `teacher` is the network for recipes with `distill`. `spec_digest` is that of the spec,
    where there is one: a checkpoint of another is not continued.
    """

    model: nn.Module
    data: Data
    recipe: Train
    folder: Path
    resume: bool = False
    progress: Progress | None = None
    heartbeat: Heartbeat | None = None
    blocks: Collection[str] = ()
    teacher: nn.Module | None = None
    spec_digest: str | None = None

    def require_fit(self) -> None:
        """Raise SE501 if the model or the teacher does not fit the data."""
        require_data(self.model, self.data)
        if self.recipe.distill is not None:
            if self.teacher is None:
                raise TypeError("a recipe with `distill` needs a teacher: FitRequest(..., teacher=...)")
            require_data(self.teacher, self.data)


def fit(request: FitRequest) -> FitResult:
    """Train the model in place, or continue from the last checkpoint.

    After ^C or SIGTERM the model holds the weights of the checkpoint. The same recipe from the same weights gives the
    same weights on one machine, however often it was stopped.

    Raises SE402 if there is nothing to resume, SE501 if data and model do not fit together, SE502 if the checkpoint is
    of another network, recipe or spec, if the loss becomes NaN or memory runs out, and SE801 if the disk is full.
    What was saved stays.
    """
    request.require_fit()
    recipe, interruption = request.recipe, Interruption()
    recorder = Recorder(request.folder, recipe, interruption, request.progress, request.heartbeat, request.spec_digest)
    training = _Training(request, recorder, interruption)
    if request.resume and training.restore():
        return training.result()
    request.folder.mkdir(parents=True, exist_ok=True)
    with (
        interruption.listening(),
        quiet_lightning(),
        reproducible(recipe.threads, tf32=recipe.tf32),
        in_mode(request.model, training=True),
        process_group(),
    ):
        trainer = training.trainer()
        if not request.resume:
            recorder.forget()
        classifier = Classifier(request.model, recipe, request.data, request.blocks, request.teacher)
        classifier.partial = recorder.partial
        with gates_in_fp32(classifier.networks, () if recipe.precision == "fp32" else tuple(request.blocks)):
            training.run(trainer, classifier)
    return training.result()


@dataclass(frozen=True)
class _Training:
    """A training, with its recorder and the signals that stop it."""

    request: FitRequest
    recorder: Recorder
    interruption: Interruption

    def restore(self) -> bool:
        """Load the history of the checkpoint; True if the training was already finished."""
        recorder, recipe = self.recorder, self.request.recipe
        saved = checkpoint.read(recorder.checkpoint)
        checkpoint.require_fit(saved, self.request.model, recipe, recorder.checkpoint)
        checkpoint.require_spec(saved, self.request.spec_digest, recorder.checkpoint)
        recorder.history, recorder.partial = saved.history, checkpoint.partial_of(saved, recipe)
        if not finished(saved.history, recipe):
            return False
        self.request.model.load_state_dict(saved.result)
        # A run killed between the two files left the table one row short.
        recorder.write_tables()
        return True

    def trainer(self) -> pl.Trainer:
        """Lightning's trainer without logging and checkpoints: the recorder writes both."""
        recipe = self.request.recipe
        return pl.Trainer(
            max_epochs=recipe.epochs,
            callbacks=[self.interruption, self.recorder],
            default_root_dir=self.recorder.checkpoint.parent,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            plugins=[Straight()],
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.clip_grad,
            precision=precision(recipe),
            **devices(min(recipe.batch_size, len(self.request.data.train)), freezing=recipe.freeze is not None),
        )

    def run(self, trainer: pl.Trainer, classifier: Classifier) -> None:
        """Train until the recipe is done or a signal came; the model then holds the weights of the checkpoint."""
        saved, model = self.recorder.checkpoint, self.request.model
        trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        try:
            trainer.fit(classifier, ckpt_path=saved if self.request.resume else None, weights_only=True)
            if classifier.ema is not None:
                model.load_state_dict(classifier.result.state_dict())
        except (Interrupted, SystemExit) as stop:
            self._stopped(stop)
            if saved.is_file():
                model.load_state_dict(checkpoint.read(saved).result)
        except (OSError, MemoryError, RuntimeError) as error:
            if (known := as_diagnostic(error, self.recorder.held, self.request.recipe)) is None:
                raise
            raise known from error
        finally:
            self.recorder.close()
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in trains)

    def _stopped(self, stop: BaseException) -> None:
        """Record the signal behind an exception; raises the exception again if no signal caused it.

        Lightning turns the KeyboardInterrupt of a second ^C into SystemExit, and a SIGTERM that it caught itself into a
        SystemExit with code 0. Any other SystemExit is raised again.
        """
        if isinstance(stop, SIGTERMException):
            self.interruption.stop(signal.SIGTERM)
        elif isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise stop
        self.interruption.stop(signal.SIGINT)

    def result(self) -> FitResult:
        """What was recorded; the model holds the best weights if the recipe keeps those."""
        recorder, recipe = self.recorder, self.request.recipe
        if recipe.keep == "best" and finished(recorder.history, recipe):
            self.request.model.load_state_dict(load_file(recorder.best))
        return FitResult(recorder.history, self.interruption.signal, recorder.checkpoint, recorder.metrics, recipe.keep)


def require_data(model: nn.Module, data: Data) -> None:
    """Raise SE501 if the model does not turn the data's images into one logit per class."""
    sample = data.held_out.images[:2]
    try:
        outputs = logits(model, [sample])
    except (RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise fail("SE501", f"the model does not take images of {list(sample.shape[1:])}: {reason}") from error
    if outputs.shape != (len(sample), len(data.classes)):
        raise fail(
            "SE501",
            f"the data has {len(data.classes)} classes, the model gives {list(outputs.shape[1:])} outputs an image",
            "set the model's number of classes, e.g. `kwargs: {num_classes: " + f"{len(data.classes)}" + "}`",
        )
