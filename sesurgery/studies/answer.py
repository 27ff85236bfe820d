"""The answer of a study: a row for each cell, which cells differ from the plain network, and which one to take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sesurgery.studies.cells import Cell, plain_of
from sesurgery.studies.statistics import Difference, Interval, against, mean_interval, pairwise


@dataclass(frozen=True)
class Share:
    """A share (0.1 = 10 %) with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Timing:
    """Latency of a cell's engine in seconds: the median with its interval over the placements of the race.

    `tax` is its time over that of its plain network's engine minus one, paired; None for a plain network.
    """

    median: float
    low: float
    high: float
    tax: Share | None = None


@dataclass(frozen=True)
class Outcome:
    """One trial: its held-out top-1 where it ended well, or the reason why there is none."""

    cell: Cell
    seed: int
    run: str | None = None
    top1: float | None = None
    params: int | None = None
    macs: int | None = None
    seconds: float | None = None
    failed: str | None = None
    curve: tuple[float, ...] = ()
    """Held-out top-1 after each epoch."""


@dataclass(frozen=True)
class Row:
    """One cell. `against_plain` is None for a plain network, and where the two have no seed in common."""

    cell: Cell
    trials: int
    failures: tuple[str, ...]
    top1: Interval | None
    against_plain: Difference | None
    params: int | None
    macs: int | None
    latency: Timing | None
    curve: tuple[float, ...] = ()


@dataclass(frozen=True)
class Answer:
    """All cells, the positions of those on the Pareto front from the cheapest up, and the one to take, with why.

    `doubt` says what is doubtful about the latencies, if anything is.
    """

    name: str
    axes: Mapping[str, object]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    pareto: tuple[int, ...]
    taken: int | None
    advice: str
    confidence: float
    doubt: str | None = None


def answer(
    name: str,
    axes: Mapping[str, object],
    seeds: tuple[int, ...],
    outcomes: Sequence[Outcome],
    timings: Mapping[str, Timing] | None = None,
    confidence: float = 0.95,
) -> Answer:
    """The answer from trials, and from the latency of engines by the key of their cell.

    Cells are in the order of their first trial, each group after its plain network.
    """
    groups: dict[str, dict[str, list[Outcome]]] = {}
    for outcome in outcomes:
        group = groups.setdefault(outcome.cell.group, {plain_of(outcome.cell).key: []})
        group.setdefault(outcome.cell.key, []).append(outcome)
    # Trials that were begun again come later: sums must not depend on that, not even in their last digit.
    outcomes = sorted(outcomes, key=lambda outcome: outcome.seed)
    for group in groups.values():
        for cell in group.values():
            cell.sort(key=lambda outcome: outcome.seed)
    scores = [[_scores(cell) for cell in group.values()] for group in groups.values()]
    trainings = [next(each for cell in group.values() for each in cell).cell.trained.group for group in groups.values()]
    judged = against(scores, confidence, trainings)
    among = [each for group_scores in scores for each in group_scores]
    rows: list[Row] = []
    for group, differences in zip(groups.values(), judged, strict=True):
        for cell, difference in zip(group.values(), (None, *differences), strict=True):
            if cell:
                mean = mean_interval(own, confidence, among) if (own := _scores(cell)) else None
                rows.append(_row(cell, mean, difference, (timings or {}).get(cell[0].cell.key)))
    # A latency beside MACs compares nothing: cost is latency where all rows have one.
    front = _front(rows)
    taken, advice = _advise(rows, front, outcomes, (scores, trainings))
    return Answer(name, axes, seeds, tuple(rows), front, taken, advice, confidence)


def _scores(outcomes: Sequence[Outcome]) -> dict[int, float]:
    return {outcome.seed: outcome.top1 for outcome in outcomes if outcome.top1 is not None}


def _row(
    outcomes: Sequence[Outcome], mean: Interval | None, difference: Difference | None, latency: Timing | None
) -> Row:
    scores = _scores(outcomes)
    done = [outcome for outcome in outcomes if outcome.top1 is not None]
    # A trial that failed and later succeeded does not count as failed.
    failures = {outcome.seed: outcome.failed for outcome in outcomes if outcome.failed and outcome.seed not in scores}
    first = done[0] if done else None
    curves = [outcome.curve for outcome in done if outcome.curve]
    length = min(map(len, curves), default=0)
    return Row(
        outcomes[0].cell,
        len(scores) + len(failures),
        tuple(f"seed {seed}: {why}" for seed, why in failures.items()),
        mean,
        difference,
        None if first is None else first.params,
        None if first is None else first.macs,
        latency,
        tuple(sum(curve[epoch] for curve in curves) / len(curves) for epoch in range(length)),
    )


def _front(rows: Sequence[Row]) -> tuple[int, ...]:
    """Cells that no other beats in mean accuracy without costing more."""
    cost = costs(rows)
    known = [index for index, row in enumerate(rows) if row.top1 is not None and math.isfinite(cost[index])]
    front: list[int] = []
    for index in sorted(known, key=lambda each: (cost[each], -_mean(rows[each]))):
        if not front or _mean(rows[index]) > _mean(rows[front[-1]]):
            front.append(index)
    return tuple(front)


def costs(rows: Sequence[Row]) -> list[float]:
    """The cost of each row in one unit: latency in seconds where every row with a result has it, else MACs."""
    if timed(rows):
        return [math.inf if row.latency is None else row.latency.median for row in rows]
    return [math.inf if row.macs is None else float(row.macs) for row in rows]


def timed(rows: Sequence[Row]) -> bool:
    """Whether the cost of cells is their latency: it was measured for every one that has a result."""
    return all(row.latency is not None for row in rows if row.top1 is not None)


def _mean(row: Row) -> float:
    return row.top1.mean if row.top1 is not None else -math.inf


def _advise(
    rows: Sequence[Row],
    front: tuple[int, ...],
    outcomes: Sequence[Outcome],
    noise: tuple[Sequence[Sequence[Mapping[int, float]]], Sequence[str]],
) -> tuple[int | None, str]:
    """The recommended row, and the reason in words."""
    compared = [row.against_plain for row in rows if row.against_plain is not None]
    if not front or not compared:
        return None, "Nothing can be said yet: no cell has a seed in common with its plain network."
    if all(each.p is None for each in compared):
        return None, "One seed tells nothing: differences of single trainings are noise. Add seeds."
    better = [index for index, row in enumerate(rows) if _better(row.against_plain)]
    unit = "latency" if timed(rows) else "MACs"
    if not better:
        plain = max((index for index, row in enumerate(rows) if row.cell.plain), key=lambda each: _mean(rows[each]))
        needed = [each.more_seeds for each in compared if each.more_seeds is not None and each.difference > 0]
        comparisons = f"{len(compared)} comparison{'s' * (len(compared) > 1)}"
        text = f"Take the plain network: no cell was told apart from it for the better, in {comparisons}."
        if needed:
            more = min(needed)
            text += f" The largest gain that was seen would need {more} more seed{'s' * (more > 1)} to be told."
        return plain, text
    best = max(better, key=lambda each: _mean(rows[each]))
    of = [_scores([outcome for outcome in outcomes if outcome.cell.key == rows[each].cell.key]) for each in better]
    beaten = pairwise(of[better.index(best)], of, *noise)
    cost = costs(rows)
    alike = [each for each, other in zip(better, beaten, strict=True) if other is None or not other.significant]
    taken = min(alike, key=lambda each: (cost[each], -_mean(rows[each])))
    gain = rows[taken].against_plain
    assert gain is not None
    text = f"Take {rows[taken].cell}: {100 * gain.difference:+.2f} points against the plain network"
    if gain.low is not None and gain.high is not None:
        text += f" ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
    text += ". It has the best mean" if taken == best else f". It is not told apart from the best, {rows[best].cell}"
    return taken, f"{text}, and no cell that is as good costs less {unit}."


def _better(difference: Difference | None) -> bool:
    return difference is not None and difference.significant and difference.difference > 0
