"""The learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from sesurgery.spec.train import Train


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Train, steps: int) -> LRScheduler:
    """The recipe's schedule for epochs of so many steps; it is advanced at every step."""
    warmup = recipe.optimizer.warmup_epochs
    if recipe.schedule is None:
        return LambdaLR(optimizer, warmup_cosine(round(warmup * steps), recipe.epochs * steps))
    from timm.scheduler import create_scheduler_v2

    wanted = recipe.schedule
    made, _ = create_scheduler_v2(
        optimizer,
        sched=wanted.name,
        num_epochs=recipe.epochs,
        decay_epochs=wanted.decay_epochs,
        decay_milestones=list(wanted.milestones),
        decay_rate=wanted.decay_rate,
        min_lr=wanted.min_lr,
        warmup_lr=wanted.warmup_lr,
        warmup_epochs=warmup,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    return _OfTimm(optimizer, made)


class _OfTimm(LRScheduler):
    """Adapts a timm scheduler to torch's LRScheduler."""

    def __init__(self, optimizer: torch.optim.Optimizer, inner: Any) -> None:
        self.inner = inner
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        self.inner.step_update(self.last_epoch)
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        # A checkpoint holds plain data, and the step says it all.
        return {key: value for key, value in super().state_dict().items() if key != "inner"}


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
