"""Gate statistics for a terminal, as JSON and as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sesurgery.reports.wording import fields, percent, plural
from sesurgery.tables import aligned
from sesurgery.verification.gates import UNLABELLED, BlockGates

if TYPE_CHECKING:
    from sesurgery.pipeline.gates.gates import GateResult

BETWEEN = "between classes"
HEADER = ["block", "channels", "mean", "deviation", BETWEEN, "dead", "saturated", "constant", "advice"]
UNSEEN = "its gate does not show, or differs over the map"
HIDDEN = "its gate differs over the map, or lies in code of which there is no graph that is the same function"
COLUMNS = 3
CURVE = 50
"""Channels of a curve, as in the SE paper's figure 6: more cannot be told apart in a panel."""


def to_text(result: GateResult) -> str:
    """A row a block, and what is to be done."""
    left = [f"{key}: {HIDDEN if key in result.existing else UNSEEN}" for key in result.left]
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
    return "\n".join([*lines, *_of_the_network(result), *left])


def _of_the_network(result: GateResult) -> list[str]:
    """Which rows are no blocks of ours, in a line."""
    existing = [block.key for block in result.blocks if block.key in result.existing]
    if not existing:
        return []
    if len(existing) == len(result.blocks):
        return ["the network brings these gates along: none is a block of ours"]
    return [f"no blocks of ours, the network brings them along: {', '.join(existing)}"]


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
        "existing": list(result.existing),
    }


def draw(result: GateResult, path: Path, kind: str) -> None:
    """The mean gate by channel and class, a panel a block; bands are one deviation, of the first two classes.

    Of more than `CURVE` channels, so many are drawn, evenly spaced.

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


def evenly(channels: int) -> list[int]:
    """The channels that are drawn: all, or `CURVE` of them from the first to the last."""
    if channels <= CURVE:
        return list(range(channels))
    return [round(place * (channels - 1) / (CURVE - 1)) for place in range(CURVE)]


def _panel(panel: Any, block: BlockGates) -> None:
    from matplotlib.ticker import MaxNLocator

    channels = evenly(block.channels)
    for number, of in enumerate(block.classes):
        (line,) = panel.plot(channels, [of.mean[channel] for channel in channels], linewidth=1.2, label=of.name)
        if number < 2:
            low = [of.mean[channel] - of.std[channel] for channel in channels]
            high = [of.mean[channel] + of.std[channel] for channel in channels]
            panel.fill_between(channels, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_title(block.key, fontsize=10)
    panel.set_xlabel("channel" if block.channels <= CURVE else f"channel ({CURVE} of {block.channels})", fontsize=9)
    panel.set_ylabel("gate", fontsize=9)
