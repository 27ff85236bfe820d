"""Gate statistics for a terminal, as JSON and as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sesurgery.reports.wording import fields, percent, plural
from sesurgery.tables import aligned
from sesurgery.verification.gates import UNLABELLED, BlockGates

if TYPE_CHECKING:
    from sesurgery.pipeline.gates import GateResult

BETWEEN = "between classes"
HEADER = ["block", "channels", "mean", "deviation", BETWEEN, "dead", "saturated", "constant", "advice"]
COLUMNS = 3


def to_text(result: GateResult) -> str:
    """A row a block, and what is to be done."""
    left = [f"{key}: its gate does not show, or differs over the map" for key in result.left]
    if not result.blocks:
        return "\n".join(left)
    rows = [HEADER, *(_row(block) for block in result.blocks)]
    if len(result.classes) == 1:
        # Of one class there is nothing between classes.
        rows = [[cell for column, cell in zip(HEADER, row, strict=True) if column != BETWEEN] for row in rows]
    samples = result.blocks[0].samples
    of = f" of {', '.join(result.classes)}" if result.classes != (UNLABELLED,) else ""
    lines = [f"{plural(samples, 'sample')}{of}", *aligned(rows)]
    if samples > 1 and len(result.classes) > 1:
        lines.append(
            f"between classes, a gate that does not know them has {percent((len(result.classes) - 1) / (samples - 1))}"
        )
    return "\n".join([*lines, *left])


def _row(block: BlockGates) -> list[str]:
    return [
        block.key,
        str(block.channels),
        f"{block.mean:.3f}",
        f"{block.std:.3f}",
        percent(block.between_class),
        str(block.dead),
        "" if block.saturated is None else str(block.saturated),
        f"{block.constant} (all within {block.constant_within:.2g})",
        block.advice,
    ]


def to_json(result: GateResult) -> dict[str, object]:
    """The same with the curves of every class."""
    return {
        "onnx" if result.source.suffix == ".onnx" else "run": result.source.as_posix(),
        "classes": list(result.classes),
        "blocks": [fields(block) for block in result.blocks],
        "left": list(result.left),
    }


def draw(result: GateResult, path: Path, kind: str) -> None:
    """The mean gate of every channel by class, a panel a block; bands are one deviation, of the first two classes.

    `kind` is what matplotlib writes: png, svg or pdf.
    """
    from matplotlib.figure import Figure

    rows = math.ceil(len(result.blocks) / COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 2.6 * rows + 0.5), layout="constrained")
    panels: Any = figure.subplots(rows, COLUMNS, squeeze=False)
    for panel, block in zip(panels.flat, result.blocks, strict=False):
        _panel(panel, block)
    for panel in panels.flat[len(result.blocks) :]:
        panel.set_visible(False)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=120, format=kind)


def _panel(panel: Any, block: BlockGates) -> None:
    from matplotlib.ticker import MaxNLocator

    channels = range(block.channels)
    for number, of in enumerate(block.classes):
        (line,) = panel.plot(channels, of.mean, linewidth=1.2, label=of.name)
        if number < 2:
            low = [mean - std for mean, std in zip(of.mean, of.std, strict=True)]
            high = [mean + std for mean, std in zip(of.mean, of.std, strict=True)]
            panel.fill_between(channels, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_title(block.key, fontsize=10)
    panel.set_xlabel("channel", fontsize=9)
    panel.set_ylabel("gate", fontsize=9)
