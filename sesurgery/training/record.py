"""What a training run leaves in its folder: `last.ckpt`, `metrics.csv`, TensorBoard events; all but the last atomic."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch.utils.tensorboard import SummaryWriter

from sesurgery.artifacts import write_text, writing
from sesurgery.diagnostics import fail
from sesurgery.spec.train import Train
from sesurgery.training.batches import Batch
from sesurgery.training.checkpoint import OWN, own_part
from sesurgery.training.history import CHECKPOINT, Epoch, to_csv
from sesurgery.training.module import Classifier
from sesurgery.training.recipes.stopping import finished

Progress = Callable[[Epoch], None]
Heartbeat = Callable[[str, int, int], None]

STEPS_BETWEEN_POINTS = 10


class Recorder(pl.Callback):  # type: ignore[misc]
    """Records every finished epoch. An unfinished one leaves no trace but its points in TensorBoard's step curves.

    The checkpoint is the state between two epochs, never within one: a stopped and resumed run repeats the epoch it
    was stopped in and ends with the weights of a run that was never stopped.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Train,
        history: tuple[Epoch, ...],
        progress: Progress | None,
        heartbeat: Heartbeat | None,
    ) -> None:
        self.checkpoint = folder / CHECKPOINT
        self.metrics = folder / "metrics.csv"
        self.recipe = recipe
        self.history = history
        self.progress = progress
        self.heartbeat = heartbeat
        self._writer: SummaryWriter | None = None
        self._started = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: Classifier) -> None:
        if not self.history:
            # So that a run stopped in its first epoch can be resumed.
            self._save(trainer)
        if trainer.is_global_zero:
            write_text(self.metrics, to_csv(self.history))
            # The purge hides what an earlier run, or the epoch this one repeats, wrote after this step.
            self._writer = SummaryWriter(str(self.metrics.parent), purge_step=trainer.global_step + 1)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Classifier) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Classifier, outputs: dict[str, Any], batch: Batch, index: int
    ) -> None:
        if self._writer and trainer.global_step % STEPS_BETWEEN_POINTS == 0:
            self._writer.add_scalar("step/train_loss", float(outputs["loss"]), trainer.global_step)
            self._writer.add_scalar("step/lr", module.rate, trainer.global_step)
        self._beat(trainer, "train", index, trainer.num_training_batches)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: Classifier, outputs: None, batch: Batch, index: int
    ) -> None:
        self._beat(trainer, "evaluate", index, trainer.num_val_batches[0])

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Classifier) -> None:
        # Every process computes: among several, computing means exchanging.
        epoch = Epoch(
            epoch=trainer.current_epoch + 1,
            train_loss=float(module.train_loss.compute()),
            held_out_top1=module.held_out_fraction(),
            held_out_loss=float(module.held_out_loss.compute()),
            lr=module.rate,
            seconds=round(time.perf_counter() - self._started, 3),
        )
        self._require_finite(epoch)
        self.history = (*self.history, epoch)
        self._save(trainer)
        # The same in every process: the metrics were exchanged.
        trainer.should_stop = trainer.should_stop or finished(self.history, self.recipe)
        if not trainer.is_global_zero:
            return
        write_text(self.metrics, to_csv(self.history))
        if self._writer:
            for name in ("train_loss", "held_out_top1", "held_out_loss"):
                self._writer.add_scalar(f"epoch/{name}", getattr(epoch, name), trainer.global_step)
            self._writer.flush()
        if self.progress:
            self.progress(epoch)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: Classifier, checkpoint: dict[str, Any]) -> None:
        checkpoint[OWN] = own_part(self.history, self.recipe)

    def close(self) -> None:
        """Write out the events; called however training ended."""
        if self._writer:
            self._writer.close()

    def _require_finite(self, epoch: Epoch) -> None:
        """Raise SE502 where training has diverged: what was saved is of the epoch before, and stays."""
        losses = {"training": epoch.train_loss, "held-out": epoch.held_out_loss}
        broken = [f"the {name} loss is {loss}" for name, loss in losses.items() if not math.isfinite(loss)]
        if broken:
            text = f"{' and '.join(broken)} in epoch {epoch.epoch}"
            where = f"{self.checkpoint.as_posix()} holds the state after epoch {len(self.history)}"
            raise fail("SE502", f"{text}; {where}", "lower `optimizer: lr`, or lengthen `warmup_epochs`")

    def _save(self, trainer: pl.Trainer) -> None:
        # Every process takes part in saving, the first alone writes.
        with writing(self.checkpoint) if trainer.is_global_zero else contextlib.nullcontext(self.checkpoint) as path:
            trainer.save_checkpoint(path)

    def _beat(self, trainer: pl.Trainer, phase: str, index: int, batches: int | float) -> None:
        if self.heartbeat and trainer.is_global_zero:
            self.heartbeat(phase, index + 1, int(batches))
