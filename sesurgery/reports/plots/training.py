"""The learning curve."""

from __future__ import annotations

from typing import Any

from sesurgery.reports.model import TrainingSection
from sesurgery.reports.plots.canvas import ACCENT, BASELINE, FULL, MUTED, Plot, draw, whole_numbers
from sesurgery.reports.wording import percent


def learning(name: str, training: TrainingSection) -> Plot:
    """Training loss, held-out top-1 and the learning rate by epoch, side by side."""
    rows = training.epochs
    best = max(rows, key=lambda row: row.top1)

    def paint(figure: Any) -> None:
        epochs = [row.epoch for row in rows]
        panels = figure.subplots(1, 3, width_ratios=(3, 3, 2))
        curves = (
            ("training loss", [row.train_loss for row in rows], BASELINE),
            ("held-out top-1 (%)", [100 * row.top1 for row in rows], ACCENT),
            ("learning rate", [row.learning_rate for row in rows], MUTED),
        )
        for axes, (label, values, colour) in zip(panels, curves, strict=True):
            axes.plot(epochs, values, color=colour, marker="o", markersize=4)
            axes.set(xlabel="epoch", title=label)
            axes.title.set_size(12)
            whole_numbers(axes.xaxis)
        panels[0].set_ylim(bottom=0)
        panels[2].set_ylim(bottom=0)
        panels[1].plot(best.epoch, 100 * best.top1, "D", color=ACCENT, markersize=9, mew=0)

    return Plot(
        f"Held-out top-1 peaks at {percent(best.top1)} in epoch {best.epoch}; "
        f"the weights kept reach {percent(training.top1)}",
        draw(f"{name}-learning", FULL, 260, paint),
        "Loss is the mean over the training samples of an epoch, top-1 the share of held-out samples answered right "
        "after it (the diamond marks the best). Top-1 falling while loss falls would mean overfitting.",
    )
