"""How the gates of a run's blocks moved in training, for a terminal, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sesurgery.reports.wording import percent
from sesurgery.tables import aligned
from sesurgery.verification.gates import BlockGates

if TYPE_CHECKING:
    from sesurgery.pipeline.gates.by_epoch import GatesByEpoch

COLUMNS = 8
"""Epochs in a table; of more, so many evenly."""
SHOWN: tuple[tuple[str, Callable[[BlockGates], float], Callable[[float], str]], ...] = (
    ("mean gate", lambda block: block.mean, lambda value: f"{value:.3f}"),
    ("deviation over samples", lambda block: block.std, lambda value: f"{value:.3f}"),
    ("share between classes", lambda block: block.between_class, percent),
)


def to_text(result: GatesByEpoch) -> str:
    """A table for each figure: a row a block, a column an epoch."""
    chosen = _evenly(result.epochs)
    head = "after epoch (0: before training)"
    lines = []
    for name, value, written in SHOWN:
        rows = [[f"{name} {head}", *(str(epoch) for epoch, _ in chosen)]]
        rows += [
            [each[0].key, *(written(value(block)) for block in each)]
            for each in zip(*(blocks for _, blocks in chosen), strict=True)
        ]
        lines += aligned(rows)
    return "\n".join(lines)


def _evenly(epochs: Sequence[tuple[int, tuple[BlockGates, ...]]]) -> list[tuple[int, tuple[BlockGates, ...]]]:
    if len(epochs) <= COLUMNS:
        return list(epochs)
    return [epochs[round(place * (len(epochs) - 1) / (COLUMNS - 1))] for place in range(COLUMNS)]


def to_json(result: GatesByEpoch) -> list[dict[str, object]]:
    """Every epoch with every block."""
    return [
        {
            "epoch": epoch,
            "blocks": [
                {"key": block.key, "mean": block.mean, "std": block.std, "between_class": block.between_class}
                for block in blocks
            ],
        }
        for epoch, blocks in result.epochs
    ]


def draw(result: GatesByEpoch, path: Path, kind: str) -> None:
    """A panel for each figure, a line a block from light (the first) to dark; `kind` is what matplotlib writes."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [epoch for epoch, _ in result.epochs]
    lines = list(zip(*(blocks for _, blocks in result.epochs), strict=True))
    figure = Figure(figsize=(4.2 * len(SHOWN), 3.4), layout="constrained")
    panels: Any = figure.subplots(1, len(SHOWN))
    colours = matplotlib.colormaps["viridis_r"]
    for panel, (name, value, _) in zip(panels, SHOWN, strict=True):
        for number, blocks in enumerate(lines):
            shade = colours(0.1 + 0.9 * number / max(1, len(lines) - 1))
            panel.plot(epochs, [value(block) for block in blocks], marker=".", color=shade, label=blocks[0].key)
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("epoch", fontsize=9)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, dpi=120, format=kind)
