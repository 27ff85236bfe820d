"""A share of samples with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Share:
    """`hits` out of `samples` as a share between 0 and 1, with Wilson's 95 % interval."""

    hits: int
    samples: int
    value: float
    low: float
    high: float


def share(hits: int, samples: int) -> Share:
    """The share with its interval."""
    return Share(hits, samples, hits / samples, *wilson(hits, samples))


def wilson(hits: float, samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of `hits` out of `samples` (JASA 22, 1927): within 0 and 1, at either end too.

    A sample may count as a part of a hit: the variance of numbers from 0 to 1 is at most that of as many hits.
    """
    if not 0 <= hits <= samples or samples == 0:
        raise ValueError(f"expected 0 <= hits <= samples and a sample, found {hits} of {samples}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle_share, weight = hits / samples, z * z / samples
    middle = (middle_share + weight / 2) / (1 + weight)
    reach = z / (1 + weight) * (middle_share * (1 - middle_share) / samples + weight / (4 * samples)) ** 0.5
    # At either end the bound is exact: this removes rounding errors.
    return (0.0 if hits == 0 else middle - reach), (1.0 if hits == samples else middle + reach)
