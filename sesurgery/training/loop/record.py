"""What training leaves: `last.ckpt`, `best.safetensors`, `metrics.csv` and `.jsonl`, TensorBoard events.

All but the last are written atomically.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from sesurgery.artifacts import write_text, writing
from sesurgery.diagnostics import fail
from sesurgery.spec.train import Train
from sesurgery.training.batches import Batch
from sesurgery.training.checkpoint import OWN, own_part
from sesurgery.training.history import (
    BEST,
    CHECKPOINT,
    TABLE,
    Epoch,
    Partial,
    best_of,
    epoch_file,
    kept_epochs,
    position_of,
    to_csv,
    to_json_lines,
)
from sesurgery.training.loop.interruption import Interruption
from sesurgery.training.loop.module import Classifier
from sesurgery.training.loop.trackers import Trackers
from sesurgery.training.recipes.stopping import finished

Progress = Callable[[Epoch], None]
Heartbeat = Callable[[str, int, int], None]

STEPS_BETWEEN_POINTS = 10
SCALARS = ("train_loss", "held_out_top1", "held_out_loss")
LOWER = (
    "lower `optimizer: lr`, lengthen `warmup_epochs`, or clip gradients (`clip_grad`), and start again with --restart"
)


class Recorder(pl.Callback):  # type: ignore[misc]
    """Records every finished epoch, and saves the state: after each, every `save_minutes` within one, and at a signal.

    A run that goes on from any of these states ends with the weights of a run that was never stopped.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Train,
        interruption: Interruption,
        progress: Progress | None,
        heartbeat: Heartbeat | None,
        spec_digest: str | None = None,
    ) -> None:
        self.checkpoint = folder / CHECKPOINT
        self.best = folder / BEST
        self.metrics = folder / "metrics.csv"
        self.recipe = recipe
        self.history: tuple[Epoch, ...] = ()
        self.partial: Partial | None = None
        self.interruption = interruption
        self.progress = progress
        self.heartbeat = heartbeat
        self.spec_digest = spec_digest
        self._writer: SummaryWriter | None = None
        self._trackers = Trackers(recipe, folder)
        self._started = 0.0
        self._saved = 0.0
        self._held: str | None = None

    @property
    def held(self) -> str:
        """What of the run is safe, in words."""
        if self._held is None:
            return f"{self.checkpoint.as_posix()} was not written"
        return f"{self.checkpoint.as_posix()} holds the state {self._held}"

    def on_train_start(self, trainer: pl.Trainer, module: Classifier) -> None:
        self._saved = time.monotonic()
        self._held = position_of(self.history, self.partial)
        # Of an epoch that a checkpoint left unfinished; Lightning does not begin it again.
        self._started = time.perf_counter() - (self.partial.seconds if self.partial else 0)
        if not self.history and self.partial is None:
            # So that a run stopped in its first epoch can be resumed.
            self._held = None
            self._save(trainer)
        if trainer.is_global_zero:
            self.write_tables()
            self._trackers.start(resumed=bool(self.history) or self.partial is not None)
            # The purge hides what an earlier run, or the part this one repeats, wrote after this step.
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
        # Between two batches of one step there are gradients that no checkpoint has. After the last one comes an end.
        if (index + 1) % self.recipe.accumulate == 0 and index + 1 < trainer.num_training_batches:
            self._save_within(trainer, module, index + 1)

    def _save_within(self, trainer: pl.Trainer, module: Classifier, done: int) -> None:
        due = time.monotonic() - self._saved >= 60 * self.recipe.save_minutes
        if trainer.strategy.reduce_boolean_decision(due or self.interruption.asked, all=False):
            partial = module.so_far(done, round(time.perf_counter() - self._started, 3))
            weights = [*module.model.parameters(), torch.tensor(partial.loss, device=module.device)]
            if not all(bool(weight.isfinite().all()) for weight in weights):
                text = f"the loss or a weight is not finite after batch {done} of epoch {len(self.history) + 1}"
                raise fail("SE502", f"{text}; {self.held}", LOWER)
            self.partial = partial
            self._save(trainer)
            self.interruption.leave_if_asked(trainer)

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
        self.history, self.partial = (*self.history, epoch), None
        if trainer.is_global_zero:
            self._keep_weights(epoch, module)
        self._save(trainer)
        # The same in every process: the metrics were exchanged.
        trainer.should_stop = trainer.should_stop or finished(self.history, self.recipe)
        if not trainer.is_global_zero:
            return
        self.write_tables()
        if self._writer:
            for name in SCALARS:
                self._writer.add_scalar(f"epoch/{name}", getattr(epoch, name), trainer.global_step)
            self._writer.flush()
        self._trackers.log({name: getattr(epoch, name) for name in (*SCALARS, "lr", "epoch")}, trainer.global_step)
        if self.progress:
            self.progress(epoch)

    def _keep_weights(self, epoch: Epoch, module: Classifier) -> None:
        """Of the best epoch, and of each that the recipe keeps."""
        every = self.recipe.keep_epochs
        kept = [self.best] if best_of(self.history) == epoch else []
        kept += [epoch_file(self.best.parent, epoch.epoch)] if every and epoch.epoch % every == 0 else []
        for target in kept:
            with writing(target) as path:
                save_file(_own_storage(module.result), path)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: Classifier, checkpoint: dict[str, Any]) -> None:
        checkpoint[OWN] = own_part(self.history, self.recipe, self.partial, self.spec_digest)

    def on_load_checkpoint(self, trainer: pl.Trainer, module: Classifier, checkpoint: dict[str, Any]) -> None:
        # Batches of another size than those that were counted. Saved at the end of one, it is not completed yet.
        if self.partial is not None:
            done = self.partial.batches
            current = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
            current.update(ready=done, started=done, processed=done, completed=done - 1)

    def write_tables(self) -> None:
        """The epochs done as CSV and as JSON lines."""
        write_text(self.metrics, to_csv(self.history))
        write_text(self.metrics.with_name(TABLE), to_json_lines(self.history))

    def forget(self) -> None:
        """Remove the weights of an earlier training."""
        for path in (self.checkpoint, self.best, *kept_epochs(self.best.parent).values()):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Write out the events; called however training ended."""
        if self._writer:
            self._writer.close()
        self._trackers.close(done=finished(self.history, self.recipe))

    def _require_finite(self, epoch: Epoch) -> None:
        """Raise SE502 if training has diverged: what was saved is of the epoch before, and stays."""
        losses = {"training": epoch.train_loss, "held-out": epoch.held_out_loss}
        broken = [f"the {name} loss is {loss}" for name, loss in losses.items() if not math.isfinite(loss)]
        if broken:
            text = f"{' and '.join(broken)} in epoch {epoch.epoch}"
            raise fail("SE502", f"{text}; {self.held}", LOWER)

    def _save(self, trainer: pl.Trainer) -> None:
        # Every process takes part in saving, the first alone writes.
        with writing(self.checkpoint) if trainer.is_global_zero else contextlib.nullcontext(self.checkpoint) as path:
            trainer.save_checkpoint(path)
        self._saved, self._held = time.monotonic(), position_of(self.history, self.partial)

    def _beat(self, trainer: pl.Trainer, phase: str, index: int, batches: int | float) -> None:
        if self.heartbeat and trainer.is_global_zero:
            self.heartbeat(phase, index + 1, int(batches))


def _own_storage(network: nn.Module) -> dict[str, torch.Tensor]:
    # The format refuses tensors that share memory (tied weights).
    return {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
