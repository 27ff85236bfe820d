"""The loss in training: of class indices, or of shares of classes where images are mixed."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from sesurgery.spec.train import Train

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def make_loss(recipe: Train) -> Loss:
    """The mean loss of logits [N, classes] against labels [N], or against shares [N, classes] that add up to one.

    `bce` takes every class as a question of its own (arXiv 2110.00476 section 2), averaged over the classes. With a
    threshold the classes of a mixed image are wholly there, as in that paper.
    """
    smoothing, threshold = recipe.label_smoothing, recipe.bce_threshold
    if recipe.loss == "cross_entropy":
        return lambda outputs, labels: F.cross_entropy(outputs, labels, label_smoothing=smoothing)

    def bce(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        shares = F.one_hot(labels, outputs.shape[1]) if labels.ndim == 1 else labels
        if threshold is not None:
            shares = shares > threshold
        target = shares.to(outputs.dtype) * (1 - smoothing) + smoothing / outputs.shape[1]
        return F.binary_cross_entropy_with_logits(outputs, target)

    return bce


def distance(outputs: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """How far logits [N, classes] are from a teacher's, in nats an image (arXiv 1503.02531 section 2).

    The divergence of the softened answers, times the square of the temperature, so that its gradients keep their size.
    """
    ours, theirs = (F.log_softmax(logits / temperature, 1) for logits in (outputs, taught))
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2
