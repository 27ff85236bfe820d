"""The cost of each of several blocks, from pairs of engines: the blocks of one are those that the other lacks.

Leaving out one block at a time spends two engines on each price. In a pair every block lies on one side or the other,
so every pair tells something of every price. The pairs are the rows of a Hadamard matrix: any two blocks are on the
same side as often as on opposite ones. A block's price is the mean of the pairs' differences, turned round where the
other engine has it. Of n pairs its variance is that of one pair over n; left out alone it would have that of one pair
(Yates, J. R. Stat. Soc. Suppl. 2, 1935; Hotelling, Ann. Math. Stat. 15, 1944).

Half of the engines that have a block have any other one. So where blocks act on one another in pairs, a price holds
half of each interaction, and the prices add up to the whole: they are Shapley's values (Contributions to the Theory of
Games II, 1953).

What an engine pays once for having any block, however many, is in no such pair: both sides have some. It is found from
pairs of one block against none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sesurgery.backends.base import Array, Progress
from sesurgery.spec.latency import Latency
from sesurgery.verification.cost import Seconds
from sesurgery.verification.estimates import Floats, student
from sesurgery.verification.placements import Clock, Contender, Placement, place

Pair = tuple[frozenset[int], frozenset[int]]
"""The indices of the blocks in one engine, and of those in the other."""
Placements = Sequence[Sequence[Placement]]
"""Those of every pair."""
TRIES = 256
"""Choices of signs among which the evenest is taken."""
MOST_SINGLES = 4
CLIP = 2.0
"""How many standard deviations a placement may be off before the rest is cut off."""
SPREAD_OF_GAPS = 1.0483
"""A normal variable's standard deviation over the median difference of two draws: 1 / (sqrt(2) * 0.6745)."""
STEPS = 30
"""Of Huber's iteration, which converges geometrically."""


def balanced(count: int) -> list[Pair]:
    """The fewest pairs that weigh `count` things against one another, as near to halves as can be."""
    order = next(size for size in range(count, 2 * count + 4) if _exists(size))
    matrix = _hadamard(order)
    # A column may be turned round. So no pair need have all against nothing, which is measured for itself.
    signs = np.random.default_rng(0).choice((-1, 1), (TRIES, count))
    chosen = min((matrix[:, :count] * each for each in signs), key=lambda found: int(abs(found.sum(axis=1)).max()))
    sides = [[frozenset(np.flatnonzero(row == sign).tolist()) for sign in (1, -1)] for row in chosen]
    return [(one, other) for one, other in (sorted(pair, key=len, reverse=True) for pair in sides)]


def singles(count: int) -> list[Pair]:
    """One against none, for some that are spread evenly; none where there is one thing, as that costs both."""
    some = min(MOST_SINGLES, count // 4 or 1) if count > 1 else 0
    return [(frozenset({int(number)}), frozenset()) for number in np.linspace(0, count - 1, some + 2)[1:-1]]


def one_by_one(count: int) -> list[Pair]:
    """All against all but one, for each."""
    everything = frozenset(range(count))
    return [(everything, everything - {number}) for number in range(count)]


def weights(pairs: Sequence[Pair], count: int) -> Floats:
    """By [thing, pair], the share of each pair's difference in each thing's price.

    A last row is for what having any of them costs; it is zero where no pair of one against none tells it.
    """
    signs = [[(number in one) - (number in other) for number in range(count)] for one, other in pairs]
    shared = [[bool(one) - bool(other)] for one, other in pairs]
    told = any(len(one) == 1 and not other for one, other in pairs) and count > 1
    found: Floats = np.linalg.pinv(np.hstack([np.array(signs, float), np.array(shared, float) * told]))
    return found


@dataclass(frozen=True)
class Differences:
    """By how much the first engine of each pair takes longer, seconds a run, and the standard error of each.

    Pairs are noisy alike, so their error is found from all of them. `mean` is the time of the engines' mean.
    """

    values: tuple[float, ...]
    error: float
    freedom: int
    confidence: float
    mean: float

    def combined(self, shares: Floats) -> Seconds:
        """The sum of so much of each difference."""
        value = float(shares @ np.array(self.values))
        reach = self.reach(shares)
        return Seconds(value, value - reach, value + reach)

    def reach(self, shares: Floats) -> float:
        """How far the interval of such a sum reaches."""
        return student(self.confidence, self.freedom) * self.error * float(np.linalg.norm(shares))


def weigh(
    pairs: Sequence[tuple[Contender, Contender]],
    feeds: Mapping[str, Array],
    plan: Latency,
    shares: Floats,
    progress: Progress | None = None,
    *,
    generator: np.random.Generator | None = None,
    clock: Clock = time.perf_counter,
) -> tuple[Differences, Placements]:
    """Race the two engines of each pair, turn about; only two are loaded at a time.

    Every pair gets `plan.placements` placements, then two more for as long as a sum with `shares` (by [sum, pair])
    reaches farther than `plan.half_width` of a run's time and `plan.more_seconds` are not over. With a `half_width` of
    None it stops at `plan.placements`.
    """
    generator = generator or np.random.default_rng()
    found: list[list[Placement]] = [[] for _ in pairs]
    more_since: float | None = None
    while True:
        done, wanted = len(found[0]), max(2, plan.placements)
        if done >= wanted:
            more_since = clock() if more_since is None else more_since
            differences = compare(found, plan.confidence)
            reach = max(differences.reach(row) for row in shares) / differences.mean
            if plan.half_width is None or reach <= plan.half_width or clock() - more_since >= plan.more_seconds:
                return differences, found
        orders = [tuple(generator.permutation(2).tolist()) for _ in pairs]
        for turn in (1, -1):
            for step, number in enumerate(generator.permutation(len(pairs)).tolist()):
                if progress:
                    progress("racing engines in pairs", len(pairs) * len(found[0]) + step, 0)
                cold = not any(found)
                found[number].append(place(pairs[number], orders[number][::turn], feeds, plan, generator, clock, cold))


def compare(found: Placements, confidence: float) -> Differences:
    """The pairs' differences. Their model is cost of the pair + load order + chance, in logarithms of the ratio.

    Costs are Huber's estimate (Ann. Math. Stat. 35, 1964): a placement that the machine disturbed counts only up to
    CLIP times the common spread of a placement. Without such placements this is the mean, as good as exactly.
    """
    logs = np.array([[np.median(_ratios(placement)) for placement in each] for each in found])
    signs = np.array([[1.0 if placement.load_order[0] == 0 else -1.0 for placement in each] for each in found])
    # Each order has its reverse, so that what loading first adds takes nothing from the costs.
    order = float(np.median((signs * logs).reshape(len(logs), -1, 2).mean(axis=2)))
    level = logs - order * signs
    first, second = np.triu_indices(level.shape[1], 1)
    limit = CLIP * SPREAD_OF_GAPS * float(np.median(np.abs(level[:, first] - level[:, second])))
    costs = np.median(level, axis=1)
    for _ in range(STEPS):
        costs = costs + _clipped(level - costs[:, None], limit).mean(axis=1)
    left = _clipped(level - costs[:, None], limit)
    freedom = logs.size - len(costs) - 1
    inside = float((np.abs(level - costs[:, None]) <= limit).mean())
    error = float((left**2).sum() / freedom / logs.shape[1]) ** 0.5 / inside
    means = np.mean([[np.median(placement.kept, axis=(1, 2)).mean() for placement in each] for each in found], axis=1)
    # Of two times with this mean and this ratio.
    values, mean = 2 * means * np.tanh(costs / 2), float(means.mean())
    return Differences(tuple(values.tolist()), mean * error, freedom, confidence, mean)


def _clipped(values: Floats, limit: float) -> Floats:
    found: Floats = np.clip(values, -limit, limit)
    return found


def _ratios(placement: Placement) -> Floats:
    """Of each round, by the fastest run of either engine's turn: what disturbs a run only ever makes it longer."""
    ours, theirs = placement.kept.min(axis=2)
    found: Floats = np.log(ours / theirs)
    return found


def _exists(order: int) -> bool:
    """Whether `_hadamard` makes one of this order."""
    return order <= 2 or (order % 4 == 0 and _prime(order - 1)) or (order % 8 == 0 and _exists(order // 2))


def _hadamard(order: int) -> Floats:
    """A matrix of 1 and -1 with orthogonal rows, by Sylvester or by Paley (J. Math. Phys. 12, 1933)."""
    if order == 1:
        return np.ones((1, 1))
    if order % 4 == 0 and _prime(order - 1):
        prime = order - 1
        squares = {number**2 % prime for number in range(1, prime)}
        characters = np.array([0, *(1 if number in squares else -1 for number in range(1, prime))], float)
        matrix = np.eye(order)
        matrix[0, 1:], matrix[1:, 0] = 1, -1
        matrix[1:, 1:] += characters[np.subtract.outer(np.arange(prime), np.arange(prime)) % prime]
        return matrix
    return np.kron(np.array([[1.0, 1.0], [1.0, -1.0]]), _hadamard(order // 2))


def _prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
