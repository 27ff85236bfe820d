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
from sesurgery.training.interruption import Interrupted, Interruption
from sesurgery.training.machine import devices, process_group, reproducible
from sesurgery.training.module import Classifier
from sesurgery.training.quiet import quiet_lightning
from sesurgery.training.recipes.stopping import finished
from sesurgery.training.record import Heartbeat, Progress, Recorder
from sesurgery.training.saving import Straight
from sesurgery.training.speed import gates_in_fp32, precision
from sesurgery.training.trouble import as_diagnostic


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


def fit(
    model: nn.Module,
    data: Data,
    recipe: Train,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    heartbeat: Heartbeat | None = None,
    blocks: Collection[str] = (),
    teacher: nn.Module | None = None,
) -> FitResult:
    """Train `model` in place by the recipe, or go on from the folder's `last.ckpt`.

    `blocks` are the paths of inserted blocks in the model, for recipes that treat them in their own way, and `teacher`
    is the network whose answers are learned where the recipe says `distill`.
    `progress` is called after each epoch, `heartbeat` after each batch with ("train" | "evaluate", done, of). After ^C
    or SIGTERM the model holds the weights that the checkpoint does. The same recipe from the same weights gives the
    same weights on one machine, however often it was stopped.

    Raises SE402 where there is nothing to resume, SE501 where data and model do not fit together, SE502 where the
    checkpoint is of another network or recipe, where the loss is no longer a number or memory is short, and SE801 where
    the disk is full. What was saved stays.
    """
    require_data(model, data)
    if recipe.distill is not None:
        require_data(_named(teacher, recipe), data)
    interruption = Interruption()
    recorder = Recorder(folder, recipe, interruption, progress, heartbeat)
    training = _Training(model, data, recipe, recorder, interruption)
    if resume and training.restore():
        return training.result()
    folder.mkdir(parents=True, exist_ok=True)
    with (
        interruption.listening(),
        quiet_lightning(),
        reproducible(recipe.threads, tf32=recipe.tf32),
        in_mode(model, training=True),
        process_group(),
    ):
        trainer = training.trainer()
        if not resume:
            # Of an earlier training: nothing may take it for this one's.
            recorder.checkpoint.unlink(missing_ok=True)
            recorder.best.unlink(missing_ok=True)
        classifier = Classifier(model, recipe, data, blocks, teacher)
        classifier.partial = recorder.partial
        with gates_in_fp32(classifier.networks, () if recipe.precision == "fp32" else tuple(blocks)):
            training.run(trainer, classifier, resume=resume)
    return training.result()


@dataclass(frozen=True)
class _Training:
    """A model in training, and what records it and can stop it."""

    model: nn.Module
    data: Data
    recipe: Train
    recorder: Recorder
    interruption: Interruption

    def restore(self) -> bool:
        """Take over the history of the checkpoint; whether no epoch is left to do."""
        recorder, recipe = self.recorder, self.recipe
        saved = checkpoint.read(recorder.checkpoint)
        checkpoint.require_fit(saved, self.model, recipe, recorder.checkpoint)
        recorder.history, recorder.partial = saved.history, checkpoint.partial_of(saved, recipe)
        if not finished(saved.history, recipe):
            return False
        self.model.load_state_dict(saved.result)
        # A run killed between the two files left the table one row short.
        recorder.write_tables()
        return True

    def trainer(self) -> pl.Trainer:
        """Lightning's trainer, which logs nothing and writes nothing: the recorder does."""
        recipe = self.recipe
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
            **devices(min(recipe.batch_size, len(self.data.train)), freezing=recipe.freeze is not None),
        )

    def run(self, trainer: pl.Trainer, classifier: Classifier, *, resume: bool) -> None:
        """Train until the recipe is done or a signal came; the model then holds the weights of the checkpoint."""
        saved = self.recorder.checkpoint
        trains = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        try:
            trainer.fit(classifier, ckpt_path=saved if resume else None, weights_only=True)
            if classifier.ema is not None:
                self.model.load_state_dict(classifier.result.state_dict())
        except (Interrupted, SystemExit) as stop:
            self._stopped(stop)
            if saved.is_file():
                self.model.load_state_dict(checkpoint.read(saved).result)
        except (OSError, MemoryError, RuntimeError) as error:
            if (known := as_diagnostic(error, self.recorder.held, self.recipe)) is None:
                raise
            raise known from error
        finally:
            self.recorder.close()
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name in trains)

    def _stopped(self, stop: BaseException) -> None:
        """Note the signal behind an exception; raises the exception again where there was none.

        Lightning turns a KeyboardInterrupt, the second ^C, into SystemExit, and a SIGTERM that it took itself into
        another with the code of a success. Any other SystemExit is not ours to keep.
        """
        if isinstance(stop, SIGTERMException):
            self.interruption.stop(signal.SIGTERM)
        elif isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise stop
        self.interruption.stop(signal.SIGINT)

    def result(self) -> FitResult:
        """What was recorded, with the best weights in the model where the recipe keeps those."""
        recorder, keep = self.recorder, self.recipe.keep
        if keep == "best" and finished(recorder.history, self.recipe):
            self.model.load_state_dict(load_file(recorder.best))
        return FitResult(recorder.history, self.interruption.signal, recorder.checkpoint, recorder.metrics, keep)


def _named(teacher: nn.Module | None, recipe: Train) -> nn.Module:
    if teacher is None:
        raise TypeError("a recipe with `distill` needs a teacher: fit(..., teacher=...)")
    return teacher


def require_data(model: nn.Module, data: Data) -> None:
    """Raise SE501 where the model does not turn the data's images into one logit a class."""
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
