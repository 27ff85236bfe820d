"""The loss in training: of class indices, or of shares of classes where images are mixed."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from sesurgery.spec.train import Train

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def make_loss(recipe: Train) -> Loss:
    """The mean loss of logits [N, classes] against labels [N], or against shares [N, classes] that add up to one.

    `bce` takes every class as a question of its own (arXiv 2110.00476 section 2), averaged over the classes.
    """
    smoothing = recipe.label_smoothing
    if recipe.loss == "bce":
        from timm.loss import BinaryCrossEntropy

        return BinaryCrossEntropy(smoothing=smoothing)  # type: ignore[no-any-return]
    return lambda outputs, labels: F.cross_entropy(outputs, labels, label_smoothing=smoothing)
