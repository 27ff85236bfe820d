"""A model on a split: its logits, its top-1, its loss."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from sesurgery.training.data.base import Split

BATCH = 256
"""Samples that are in memory at once where nobody says how many."""


@dataclass(frozen=True)
class Evaluation:
    """Top-1 as a fraction, the counts behind it, and the mean cross-entropy in nats (no label smoothing)."""

    top1: float
    correct: int
    samples: int
    loss: float


def evaluate(model: nn.Module, split: Split, batch_size: int = BATCH) -> Evaluation:
    """Top-1 and loss of `model` on `split`, in eval mode; the model is left as it was."""
    outputs = logits(model, (images for images, _ in split.batches(batch_size)))
    correct = int((outputs.argmax(1) == split.labels).sum())
    return Evaluation(
        top1=correct / len(split),
        correct=correct,
        samples=len(split),
        loss=float(F.cross_entropy(outputs, split.labels)),
    )


def logits(model: nn.Module, batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """Logits [N, classes], float32 on the CPU, of batches [n, C, H, W]; runs on the device of the model's weights."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with in_mode(model, training=False), torch.inference_mode():
        parts = [model(batch.to(device)).float().cpu() for batch in batches]
    # Cloned outside inference mode: inference tensors may not meet autograd later.
    return torch.cat(parts).clone()


@contextlib.contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put the model into train or eval mode, and each of its modules back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
