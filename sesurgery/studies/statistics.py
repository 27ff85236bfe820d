"""Which cells of a study differ from the plain network, with a bounded chance of false findings.

A study is a blocked design: every cell is trained from the same seeds, so a seed's own effect (its first weights, its
order of data) is common to all cells. The model of one score is

    score = cell + seed + noise

fitted by least squares within a group of cells that share one plain network. The noise is taken to be alike in all
cells of the study, and is estimated from all of them at once: a few seeds then give many degrees of freedom. With two
cells it is the paired t-test. A score counts right answers, so it is rounded to steps: the noise is at least that of
the rounding, for two pairs that happen to differ by the same number of answers do not make a difference certain.
Differences from the plain network are tested together, by Holm's step-down procedure (Scand. J. Statist. 6, 1979): the
chance of even one false finding in the study is at most `1 - confidence`. Each interval has the level at which Holm's
procedure judged its difference: it leaves out zero just where that is significant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

POWER = 0.8
"""The chance of a finding for which the seeds that are still needed are counted."""
MOST_SEEDS = 1000
"""Larger studies are unrealistic: a difference that needs more seeds is reported as not worth finding."""

Scores = Mapping[int, float]
"""The scores of one cell by seed."""


@dataclass(frozen=True)
class Interval:
    """A mean with its interval; without one (None) where one seed alone was trained."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """A cell's score less another's, over the seeds of both; `p` is corrected for the number of comparisons.

    `more_seeds` is how many further seeds would tell a difference of this size in about 80 % of studies: None if it is
    significant already, where no noise could be estimated, and where it would take more than `MOST_SEEDS`.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    significant: bool
    seeds: int
    more_seeds: int | None


@dataclass(frozen=True)
class _Fit:
    """A difference, the factor from the noise to its standard error, and the seeds it is based on."""

    value: float
    scale: float
    seeds: int


def mean_interval(scores: Scores, confidence: float = 0.95, among: Sequence[Scores] = ()) -> Interval:
    """The mean over seeds, with Student's interval: for other seeds of the same cell. Scores are shares, 0 to 1.

    `among` are those of the whole study. They tell the step that scores are rounded to, and the deviation is at least
    that of this rounding: two seeds that happen to get as many answers right do not make the mean certain.
    """
    values = np.array(list(scores.values()))
    if values.size == 0:
        raise ValueError("expected at least one score")
    if values.size == 1:
        return Interval(float(values[0]), None, None)
    deviation = max(float(values.std(ddof=1)), _rounding([[scores, *among]]))
    reach = _quantile((1 + confidence) / 2, values.size - 1) * deviation / math.sqrt(values.size)
    middle = float(values.mean())
    return Interval(middle, max(0.0, middle - reach), min(1.0, middle + reach))


def against(
    groups: Sequence[Sequence[Scores]], confidence: float = 0.95, trainings: Sequence[str] | None = None
) -> tuple[tuple[Difference | None, ...], ...]:
    """Every cell against the first of its group, the plain network; None if they have no seed in common.

    The first of each group is not part of the result. `trainings` names the trainings behind each group: groups of one
    name are the same networks, deployed differently, and tell about the noise of training once.
    """
    noise, freedom = _noise(groups, trainings)
    fits = [[_fit(group[0], cell) for cell in group[1:]] for group in groups]
    flat = [fit for row in fits for fit in row if fit is not None]
    judged = iter(_judge(flat, noise, freedom, confidence))
    return tuple(tuple(None if fit is None else next(judged) for fit in row) for row in fits)


def pairwise(
    first: Scores,
    others: Sequence[Scores],
    noise_of: Sequence[Sequence[Scores]],
    trainings: Sequence[str] | None = None,
) -> tuple[Difference | None, ...]:
    """Every one of `others` less `first`, tested together, with the noise of the whole study, as in `against`."""
    noise, freedom = _noise(noise_of, trainings)
    fits = [_fit(first, cell) for cell in others]
    judged = iter(_judge([fit for fit in fits if fit is not None], noise, freedom, 0.95))
    return tuple(None if fit is None else next(judged) for fit in fits)


def _fit(base: Scores, cell: Scores) -> _Fit | None:
    common = sorted(base.keys() & cell.keys())
    if not common:
        return None
    value = float(np.mean([cell[seed] - base[seed] for seed in common]))
    return _Fit(value, math.sqrt(2 / len(common)), len(common))


def _noise(groups: Sequence[Sequence[Scores]], trainings: Sequence[str] | None) -> tuple[float, int]:
    """The standard deviation of the noise of one training, and its degrees of freedom (0: nothing to tell it from)."""
    found: dict[str, list[tuple[float, int]]] = {}
    for number, group in enumerate(groups):
        found.setdefault(trainings[number] if trainings else str(number), []).append(_residual(group))
    total, freedom = 0.0, 0
    for parts in found.values():
        # The same trainings scored twice give no second look at their noise: the mean square, and one group's freedom.
        own, all_ = max(each for _, each in parts), sum(each for _, each in parts)
        if all_:
            total += sum(square for square, _ in parts) * own / all_
            freedom += own
    return (max(math.sqrt(total / freedom), _rounding(groups)) if freedom else math.nan), freedom


def _residual(group: Sequence[Scores]) -> tuple[float, int]:
    """What is left of a group's scores beside the effects of cell and seed: the sum of squares, degrees of freedom."""
    rows = [(cell, seed, score) for cell, scores in enumerate(group) for seed, score in scores.items()]
    if not rows:
        return 0.0, 0
    seeds = sorted({seed for _, seed, _ in rows})
    design = np.zeros((len(rows), len(group) + len(seeds)))
    for index, (cell, seed, _) in enumerate(rows):
        design[index, cell] = 1
        design[index, len(group) + seeds.index(seed)] = 1
    scores_ = np.array([score for *_, score in rows])
    solution, _, rank, _ = np.linalg.lstsq(design, scores_, rcond=None)
    return float(((scores_ - design @ solution) ** 2).sum()), len(rows) - int(rank)


def _rounding(groups: Sequence[Sequence[Scores]]) -> float:
    """The standard deviation of rounding to the smallest step between two scores; 0 where all are alike."""
    steps = np.diff(np.unique([score for group in groups for scores in group for score in scores.values()]))
    # What is smaller is the last digit of a float.
    steps = steps[steps > 1e-9]
    return float(steps.min()) / math.sqrt(12) if steps.size else 0.0


def _judge(fits: Sequence[_Fit], noise: float, freedom: int, confidence: float) -> list[Difference]:
    if not freedom:
        return [Difference(fit.value, None, None, None, False, fit.seeds, None) for fit in fits]
    raw = [_p(fit, noise, freedom) for fit in fits]
    order = sorted(range(len(fits)), key=lambda index: raw[index])
    found: dict[int, Difference] = {}
    largest, open_, alpha = 0.0, True, 1 - confidence
    left = len(fits)
    for rank, index in enumerate(order):
        fit = fits[index]
        # After the first that is not told apart, the level stays what it was judged at.
        left = len(fits) - rank if open_ else left
        largest = min(1.0, max(largest, (len(fits) - rank) * raw[index]))
        open_ = open_ and raw[index] <= alpha / left
        reach = _quantile(1 - alpha / (2 * left), freedom) * noise * fit.scale
        more = None if open_ else _more(fit, noise, alpha / left)
        found[index] = Difference(fit.value, fit.value - reach, fit.value + reach, largest, open_, fit.seeds, more)
    return [found[index] for index in range(len(fits))]


def _p(fit: _Fit, noise: float, freedom: int) -> float:
    from scipy import stats

    if noise == 0:
        return 1.0 if fit.value == 0 else 0.0
    return float(2 * stats.t.sf(abs(fit.value) / (noise * fit.scale), freedom))


def _more(fit: _Fit, noise: float, alpha: float) -> int | None:
    if fit.value == 0:
        return None
    normal = NormalDist()
    reach = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(POWER)
    needed = math.ceil(2 * (reach * noise / fit.value) ** 2)
    return max(1, needed - fit.seeds) if needed <= MOST_SEEDS else None


def _quantile(share: float, freedom: int) -> float:
    from scipy import stats

    return float(stats.t.ppf(share, freedom))
