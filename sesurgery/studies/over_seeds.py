"""Two recipes side by side, each trained from the same seeds: is one better, beyond what another seed changes?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sesurgery.studies.statistics import Difference, Interval, against, mean_interval
from sesurgery.verification.comparison import Comparison, Verdict


@dataclass(frozen=True)
class OverSeeds:
    """The first recipe against the second. Scores are held-out top-1, 0 to 1.

    `pairs` are the comparisons seed by seed, in the order of `seeds`. `difference` is the first's mean less the
    second's, with the interval and the p-value of the paired t-test over the seeds.
    """

    seeds: tuple[int, ...]
    pairs: tuple[Comparison, ...]
    first_mean: Interval
    second_mean: Interval
    difference: Difference
    verdict: Verdict


def over_seeds(pairs: Mapping[int, Comparison]) -> OverSeeds:
    """Judge comparisons by seed; of a single one there is no interval, and no difference is told."""
    seeds = tuple(sorted(pairs))
    first, second = ({seed: pairs[seed].top1[side] for seed in seeds} for side in (0, 1))
    difference = against([[second, first]])[0][0]
    assert difference is not None, "both have the same seeds"
    verdict: Verdict = "not told apart"
    if difference.significant:
        verdict = "better" if difference.difference > 0 else "worse"
    return OverSeeds(
        seeds=seeds,
        pairs=tuple(pairs[seed] for seed in seeds),
        first_mean=mean_interval(first, among=(second,)),
        second_mean=mean_interval(second, among=(first,)),
        difference=difference,
        verdict=verdict,
    )
