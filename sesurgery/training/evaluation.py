"""Logits of a model in eval mode, batch by batch; the model is left as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from sesurgery.training.data.base import Split

BATCH = 256
"""Samples that are in memory at once where nobody says how many."""


def split_logits(model: nn.Module, split: Split, batch_size: int = BATCH) -> torch.Tensor:
    """Logits [N, classes] of a model on every sample of a split, in order."""
    return logits(model, (images for images, _ in split.batches(batch_size)))


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
