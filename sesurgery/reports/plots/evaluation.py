"""Pictures of runs as files: which classes are taken for which, and how two trainings went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sesurgery.training.history import Epoch
from sesurgery.verification.scores import Scores

_WRITTEN = 20
"""Classes up to which every cell has its count, and every row its name."""
_FIRST, _SECOND = "#0b6bcb", "#8a8f98"


def confusion(scores: Scores, path: Path, kind: str) -> None:
    """Rows are true classes, columns answers; a cell's shade is its share of the row."""
    names, counts = [each.name for each in scores.classes], scores.confusion
    shares = [[cell / max(1, sum(row)) for cell in row] for row in counts]
    side = min(12.0, max(4.0, 0.5 * len(names) + 2))
    figure = _figure(side, side)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="answered", ylabel="true class", title=f"{scores.top1:.2%} of {scores.samples} right")
    if len(names) <= _WRITTEN:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        for row, line in enumerate(counts):
            for column, count in enumerate(line):
                if count:
                    colour = "white" if shares[row][column] > 0.5 else "black"
                    axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    figure.savefig(path, format=kind)


def convergence(runs: Sequence[tuple[str, Sequence[Epoch]]], path: Path, kind: str) -> None:
    """Held-out top-1 and training loss of two runs, epoch by epoch."""
    figure = _figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    for (name, epochs), colour in zip(runs, (_FIRST, _SECOND), strict=True):
        count = [epoch.epoch for epoch in epochs]
        left.plot(count, [100 * epoch.held_out_top1 for epoch in epochs], color=colour, marker=".", label=name)
        right.plot(count, [epoch.train_loss for epoch in epochs], color=colour, marker=".", label=name)
    left.set(xlabel="epoch", ylabel="held-out top-1 (%)")
    right.set(xlabel="epoch", ylabel="training loss")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.legend(frameon=False)
    figure.savefig(path, format=kind)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=120)
