"""A limit on a measurement, for build servers: `tax > 5 %`, `median > 2 ms`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sesurgery.verification.latency import LatencyReport

FIGURES = {"tax": "%", "as-exported": "%", "lowering": "%", "median": "ms", "p99": "ms"}
"""The figures that can be limited, with units: costs over the plain network, and times of the engine with blocks."""
_FORM = re.compile(r"\s*([a-z0-9-]+)\s*(>=?|<=?)\s*([-+]?\d+(?:\.\d*)?)\s*(%|ms)?\s*")


@dataclass(frozen=True)
class Limit:
    """A limit is broken if `figure` is above (`>`) or below (`<`) `value`, in the unit of the figure."""

    figure: str
    sign: str
    value: float

    def __str__(self) -> str:
        return f"{self.figure} {self.sign} {self.value:g} {FIGURES[self.figure]}"

    def broken_by(self, report: LatencyReport) -> str | None:
        """What was found if that breaks the limit, or if the figure was not measured; else None."""
        found = _figure(self.figure, report)
        if found is None:
            return "it was not measured"
        value, low, high = found
        above, equal = value > self.value, value == self.value
        broken = (above if ">" in self.sign else not above and not equal) or (equal and "=" in self.sign)
        if not broken:
            return None
        unit = FIGURES[self.figure]
        interval = "" if low is None or high is None else f" (95 % interval {low:.2f} to {high:.2f} {unit})"
        certain = low is None or high is None or not low <= self.value <= high
        return f"found {value:.2f} {unit}{interval}{'' if certain else ', the interval contains the limit'}"


def parse(text: str) -> Limit:
    """A limit from its text; raises ValueError with the valid forms."""
    match = _FORM.fullmatch(text)
    if match is None or match[1] not in FIGURES:
        known = ", ".join(f"{name} ({unit})" for name, unit in FIGURES.items())
        raise ValueError(f"{text!r} is not a limit: write it as 'tax > 5 %'; figures are {known}")
    name, sign, value, unit = match.groups()
    if unit not in (None, FIGURES[name]):
        raise ValueError(f"{text!r}: {name} is measured in {FIGURES[name]}, not in {unit}")
    return Limit(name, sign, float(value))


def _figure(name: str, report: LatencyReport) -> tuple[float, float | None, float | None] | None:
    """The figure with its interval, in its unit; None if it was not measured."""
    if name in ("median", "p99"):
        return 1e3 * getattr(report.candidate.stats, f"{name}_seconds"), None, None
    tax = {"tax": report.tax, "as-exported": report.as_exported_tax, "lowering": report.lowering}[name]
    return None if tax is None else (100 * tax.value, 100 * tax.low, 100 * tax.high)
