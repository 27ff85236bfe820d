"""When training is over: all epochs done, or no rise for a while. A function of the history, so that it resumes."""

from __future__ import annotations

from collections.abc import Sequence

from sesurgery.spec.train import Train
from sesurgery.training.history import Epoch


def finished(history: Sequence[Epoch], recipe: Train) -> bool:
    """Whether no epoch is left to do."""
    if len(history) >= recipe.epochs:
        return True
    if recipe.stop is None or not history:
        return False
    best, since = history[0].held_out_top1, 0
    for epoch in history[1:]:
        rises = epoch.held_out_top1 > best + recipe.stop.min_rise
        best, since = (epoch.held_out_top1, 0) if rises else (best, since + 1)
    return since >= recipe.stop.patience
