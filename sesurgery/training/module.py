"""The LightningModule: an image classifier, its loss, its optimiser and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Callable

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from sesurgery.spec.model import Optimizer, Train
from sesurgery.training.batches import Batch, InOrder, Shuffled, mixed
from sesurgery.training.data.base import Data
from sesurgery.training.fused import fuse

HELD_OUT_BATCH = 256


class Classifier(pl.LightningModule):  # type: ignore[misc]
    """Cross-entropy over a model's logits [N, classes]; labels are smoothed in training, never in evaluation."""

    def __init__(self, model: nn.Module, recipe: Train, data: Data) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.batches = Shuffled(data.train, recipe.batch_size, recipe.seed)
        self.held_out = InOrder(data.held_out, HELD_OUT_BATCH)
        # Without its checks a MeanMetric keeps NaN, which has to be seen, and waits for no device.
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.held_out_loss = MeanMetric(nan_strategy="disable")
        self.held_out_top1 = MulticlassAccuracy(len(data.classes), average="micro")
        self.rate = 0.0
        # In a tuple it is not registered: its modules and weights are the model's own, and have one name.
        self.running: tuple[nn.Module] = (model,)

    def train_dataloader(self) -> Shuffled:
        return self.batches

    def val_dataloader(self) -> InOrder:
        # Among several processes each evaluates the whole split: it is small, and padding would count samples twice.
        return self.held_out

    def on_fit_start(self) -> None:
        self.batches.share, self.batches.shares = self.global_rank, self.trainer.world_size
        if self.recipe.fused:
            # Only now is the model on the device that it is trained on.
            channels, height, width = self.held_out.split.images[:1].shape[1:]
            self.running = (fuse(self.model, (channels, height, width)).network,)

    def on_train_epoch_start(self) -> None:
        # Order and dropout depend on seed and epoch alone, so an epoch is the same after a resume.
        self.batches.epoch = self.current_epoch
        torch.manual_seed(mixed(self.recipe.seed, self.current_epoch, self.global_rank))
        self.train_loss.reset()

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        images, labels = batch
        self.rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        loss = F.cross_entropy(self.running[0](images), labels, label_smoothing=self.recipe.label_smoothing)
        self.train_loss.update(loss.detach(), weight=len(labels))
        return loss

    def on_validation_epoch_start(self) -> None:
        self.held_out_loss.reset()
        self.held_out_top1.reset()

    def validation_step(self, batch: Batch, index: int) -> None:
        images, labels = batch
        outputs = self.model(images)
        self.held_out_loss.update(F.cross_entropy(outputs, labels), weight=len(labels))
        self.held_out_top1.update(outputs, labels)

    def held_out_fraction(self) -> float:
        """Held-out top-1 as correct over samples, free of the metric's float32."""
        samples = len(self.held_out.split)
        return round(float(self.held_out_top1.compute()) * samples) / samples

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = make_optimizer(self.model, self.recipe.optimizer)
        factor = warmup_cosine(
            round(self.recipe.optimizer.warmup_epochs * len(self.batches)), self.recipe.epochs * len(self.batches)
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def make_optimizer(model: nn.Module, options: Optimizer) -> torch.optim.Optimizer:
    """The optimiser over the model's parameters; norms and biases, the ones of at most one dimension, do not decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.name == "adamw":
        return torch.optim.AdamW(groups, lr=options.lr)
    # torch has no Nesterov step without momentum, and the two are the same then.
    nesterov = options.nesterov and options.momentum > 0
    return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, nesterov=nesterov)


def warmup_cosine(warmup: int, total: int) -> Callable[[int], float]:
    """Factor on the learning rate at a step, counted from zero: a line up to 1, then a cosine that ends at 0.

    The cosine is that of SGDR without restarts (arXiv 1608.03983 equation 5).
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        # The scheduler also asks for the step after the last one.
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return 0.5 * (1 + math.cos(math.pi * done))

    return factor
