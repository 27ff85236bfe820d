"""Two runs side by side, for a terminal."""

from __future__ import annotations

from sesurgery.reports.wording import percent
from sesurgery.tables import aligned
from sesurgery.verification.comparison import Comparison

TOLD = {"better": "is better than", "worse": "is worse than", "not told apart": "cannot be told apart from"}


def to_text(first: str, second: str, found: Comparison) -> str:
    """The table, the difference with its interval and test, and the verdict; it speaks of these two trainings alone."""
    alone = (found.mcnemar.first_only, found.mcnemar.second_only)
    rows = [["run", "top-1", "right where the other is wrong"]]
    rows += [
        [run, f"{top1:.2%}", str(right)] for run, top1, right in zip((first, second), found.top1, alone, strict=True)
    ]
    if found.accuracy is not None:
        told = ["never" if epochs is None else str(epochs) for epochs in found.epochs_to]
        rows = [
            [*row, cell] for row, cell in zip(rows, [f"epochs to {percent(found.accuracy, 2)}", *told], strict=True)
        ]
    gap = found.difference
    interval = f"{percent(gap.confidence)} interval {100 * gap.low:+.2f} to {100 * gap.high:+.2f}"
    return "\n".join(
        [
            *aligned(rows),
            f"difference: {100 * gap.value:+.2f} points ({interval}; {found.samples} held-out samples)",
            f"McNemar's exact test: p = {found.mcnemar.p:.2g}",
            f"verdict: {first} {TOLD[found.verdict]} {second}, as far as one training of each can tell",
        ]
    )
