"""The scores of runs, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from sesurgery.tables import aligned
from sesurgery.verification.scores import Scores

HEADER = ["run", "top-1", "95 % interval", "right", "top-3", "top-5", "loss", "calibration error"]
WORST = 3


def to_text(found: Mapping[str, Scores]) -> str:
    """One table, a row a run; of a single run also the classes that fare worst."""
    rows = [HEADER, *(_row(run, scores) for run, scores in found.items())]
    lines = aligned(rows)
    if len(found) == 1:
        lines += _worst(next(iter(found.values())))
    return "\n".join(lines)


def _row(run: str, scores: Scores) -> list[str]:
    low, high = scores.top1_interval
    return [
        run,
        f"{scores.top1:.2%}",
        f"{low:.2%} to {high:.2%}",
        f"{scores.correct} of {scores.samples}",
        f"{scores.top3:.2%}",
        f"{scores.top5:.2%}",
        f"{scores.loss:.4f}",
        f"{scores.ece:.2%}",
    ]


def _worst(scores: Scores) -> list[str]:
    missed = [(each.top1, each) for each in scores.classes if each.top1 is not None and each.top1 < 1]
    missed.sort(key=lambda entry: entry[0])
    if not missed:
        return []
    told = (f"{each.name} ({top1:.2%} of {each.samples})" for top1, each in missed[:WORST])
    return [f"worst classes: {', '.join(told)}"]
