"""Two runs, or two recipes trained from several seeds, side by side, for a terminal."""

from __future__ import annotations

from sesurgery.reports.wording import percent
from sesurgery.studies.over_seeds import OverSeeds
from sesurgery.studies.statistics import Interval
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


def seeds_to_text(found: OverSeeds) -> str:
    """A row a seed, the means with their intervals, the difference with its own, and the verdict."""
    rows = [["seed", "first", "second", "difference", "McNemar's p"]]
    for seed, pair in zip(found.seeds, found.pairs, strict=True):
        first, second = pair.top1
        rows.append(
            [str(seed), f"{first:.2%}", f"{second:.2%}", f"{100 * (first - second):+.2f}", f"{pair.mcnemar.p:.2g}"]
        )
    gap = found.difference
    rows.append(
        ["mean", f"{found.first_mean.mean:.2%}", f"{found.second_mean.mean:.2%}", f"{100 * gap.difference:+.2f}", ""]
    )
    lines = aligned(rows)
    lines += [
        f"{name}: {_interval(mean)}" for name, mean in (("first", found.first_mean), ("second", found.second_mean))
    ]
    if gap.low is None or gap.high is None or gap.p is None:
        lines.append("one seed has no interval: train both from at least two")
    else:
        lines.append(
            f"difference: {100 * gap.difference:+.2f} points (95 % interval {100 * gap.low:+.2f} to "
            f"{100 * gap.high:+.2f}; paired t-test over {gap.seeds} seeds, p = {gap.p:.2g})"
        )
    more = ""
    if found.verdict == "not told apart" and gap.more_seeds:
        more = f"; about {gap.more_seeds} more seed{'s' * (gap.more_seeds > 1)} would tell a difference of this size"
    return "\n".join([*lines, f"verdict: the first recipe {TOLD[found.verdict]} the second{more}"])


def _interval(mean: Interval) -> str:
    if mean.low is None or mean.high is None:
        return f"{mean.mean:.2%}"
    return f"{mean.mean:.2%} (95 % interval of the mean {mean.low:.2%} to {mean.high:.2%})"
