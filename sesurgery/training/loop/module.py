"""The LightningModule: an image classifier, its loss, its optimiser and the learning rate of every step."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from sesurgery.spec.train import Train
from sesurgery.training.batches import Batch, InOrder, Shuffled, derived_seed
from sesurgery.training.data.base import Data
from sesurgery.training.fused import fuse
from sesurgery.training.history import Partial
from sesurgery.training.loop.speed import prepared, with_workers
from sesurgery.training.machine import seed_draws
from sesurgery.training.recipes.augment import Augmentation, make_mixing
from sesurgery.training.recipes.freezing import frozen_of
from sesurgery.training.recipes.layers import layer_rates
from sesurgery.training.recipes.loss import distance, make_loss
from sesurgery.training.recipes.optimizer import make_optimizer
from sesurgery.training.recipes.schedule import make_schedule

HELD_OUT_BATCH = 256

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3


class Classifier(pl.LightningModule):  # type: ignore[misc]
    """The recipe's loss over a model's logits [N, classes]; in evaluation it is the plain cross-entropy.

    `blocks` are the paths of inserted blocks in the model; `teacher` is a network whose answers are a second target.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Train,
        data: Data,
        blocks: Collection[str] = (),
        teacher: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.blocks = tuple(blocks)
        channels, height, width = data.held_out.images[:1].shape[1:]
        self.shape = (channels, height, width)
        wanted = recipe.augment
        augment = None if wanted is None else lambda seed: Augmentation(wanted, (height, width), seed)
        self.batches = Shuffled(
            data.train,
            recipe.batch_size,
            recipe.seed,
            augment=augment,
            repeats=1 if wanted is None else wanted.repeats,
        )
        recipe, self.rates = with_workers(recipe, self.batches)
        self.batches.workers = workers = recipe.workers if isinstance(recipe.workers, int) else 0
        self.held_out = InOrder(data.held_out, HELD_OUT_BATCH, workers)
        self.mixing = make_mixing(wanted, len(data.classes))
        self.loss = make_loss(recipe)
        self.frozen = frozen_of(model, recipe.freeze, self.blocks, len(data.classes)) if recipe.freeze else None
        self.ema: ModelEmaV3 | None = None
        if recipe.ema is not None:
            from timm.utils import ModelEmaV3

            self.ema = ModelEmaV3(model, decay=recipe.ema.decay, use_warmup=recipe.ema.warmup).requires_grad_(False)
        # Without its checks a MeanMetric keeps NaN, which has to be seen, and waits for no device.
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.held_out_loss = MeanMetric(nan_strategy="disable")
        self.held_out_top1 = MulticlassAccuracy(len(data.classes), average="micro")
        self.rate = 0.0
        self.partial: Partial | None = None
        # In a tuple it is not registered: its modules and weights are the model's own, and have one name.
        self.running: tuple[nn.Module] = (model,)
        self.teacher = None if teacher is None else (teacher.eval().requires_grad_(False),)

    @property
    def result(self) -> nn.Module:
        """What is evaluated, and what training ends with: the average of the weights if there is one."""
        return self.model if self.ema is None else self.ema.module

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """What is called in training and evaluation."""
        return (self.model,) if self.ema is None else (self.model, self.ema.module)

    def train_dataloader(self) -> Shuffled:
        return self.batches

    def val_dataloader(self) -> InOrder:
        # Among several processes each evaluates the whole split: padding would count samples twice.
        return self.held_out

    def on_fit_start(self) -> None:
        self.batches.share, self.batches.shares = self.global_rank, self.trainer.world_size
        if self.teacher is not None:
            self.teacher[0].to(self.device)
        if self.recipe.fused:
            # Only now is the model on the device that it is trained on.
            self.running = (fuse(self.model, self.shape).network,)
        if self.recipe.channels_last:
            for network in self.networks:
                network.to(memory_format=torch.channels_last)
        self.running = (prepared(self.running[0], self.recipe),)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, labels = batch
        return (images.to(memory_format=torch.channels_last) if self.recipe.channels_last else images), labels

    def on_train_start(self) -> None:
        # Lightning does not call on_train_epoch_start for an epoch that it resumes.
        if self.partial is not None:
            self._begin_epoch(self.partial.batches)
            if self.trainer.is_global_zero:
                self.train_loss.update(torch.tensor(self.partial.loss, device=self.device), weight=0)
                self.train_loss.mean_value.fill_(self.partial.loss)
                self.train_loss.weight.fill_(self.partial.weight)

    def on_train_epoch_start(self) -> None:
        self._begin_epoch(0)

    def _begin_epoch(self, done: int) -> None:
        self.batches.epoch, self.batches.begin = self.current_epoch, done
        self.train_loss.reset()
        if self.frozen is not None:
            self.frozen.set(self.model, self.current_epoch)

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        # What is drawn depends on seed, epoch and batch alone, so it is the same after a resume.
        seed_draws(derived_seed(self.recipe.seed, self.current_epoch, index, self.global_rank), self.device)
        images, labels = batch if self.mixing is None else self.mixing(*batch)
        self.rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        outputs = self.running[0](images)
        loss = self.loss(outputs, labels)
        if self.teacher is not None and (wanted := self.recipe.distill) is not None:
            with torch.no_grad():
                taught = self.teacher[0](images)
            loss = (1 - wanted.share) * loss + wanted.share * distance(outputs, taught, wanted.temperature)
        self.train_loss.update(loss.detach(), weight=len(labels))
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            # Lightning counts the step after this.
            self.ema.update(self.model, step=self.global_step + 1)

    def so_far(self, batches: int, seconds: float) -> Partial:
        """How far the epoch is, of all processes together."""
        sums = torch.stack([self.train_loss.mean_value, self.train_loss.weight])
        loss, weight = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        return Partial(batches, loss, weight, seconds)

    def on_validation_epoch_start(self) -> None:
        self.held_out_loss.reset()
        self.held_out_top1.reset()

    def validation_step(self, batch: Batch, index: int) -> None:
        images, labels = batch
        outputs = self.result(images)
        self.held_out_loss.update(F.cross_entropy(outputs, labels), weight=len(labels))
        self.held_out_top1.update(outputs, labels)

    def held_out_fraction(self) -> float:
        """Held-out top-1 as correct over samples, free of the metric's float32."""
        samples = len(self.held_out.split)
        return round(float(self.held_out_top1.compute()) * samples) / samples

    def configure_optimizers(self) -> dict[str, object]:
        recipe, inserted = self.recipe, tuple(f"{path}." for path in self.blocks)
        names = [name for name, _ in self.model.named_parameters()]
        rates = dict.fromkeys(names, 1.0)
        if recipe.optimizer.layer_decay is not None:
            rates = layer_rates(self.model, recipe.optimizer.layer_decay, self.blocks)
        if self.frozen is not None and recipe.freeze is not None:
            rates |= {name: rates[name] * recipe.freeze.lr_after for name in self.frozen.parameters}
        decays = recipe.optimizer.decay_blocks or not inserted
        optimizer = make_optimizer(
            self.model,
            recipe.optimizer,
            undecayed=() if decays else {name for name in names if name.startswith(inserted)},
            rates=rates,
            # Lightning refuses to clip gradients in 16 bits before a fused step, which unscales them itself.
            fused=self.device.type == "cuda" and (recipe.clip_grad is None or recipe.precision == "fp32"),
        )
        steps = -(-len(self.batches) // recipe.accumulate)
        schedule = make_schedule(optimizer, recipe, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
