"""The interval of a run's accuracy."""

from __future__ import annotations

from sesurgery.reports.model import RunReport
from sesurgery.verification.proportions import wilson


def samples(report: RunReport) -> int | None:
    """The number of held-out samples on which an engine was compared; None if no engine was."""
    counts = [entry.report.samples for engine in report.engines for entry in engine.parity]
    return max(counts, default=None)


def interval(report: RunReport) -> tuple[float, float] | None:
    """Wilson's 95 % interval of a run's top-1; None if the number of samples is not known."""
    held_out = samples(report)
    if report.training is None or held_out is None:
        return None
    return wilson(round(report.training.top1 * held_out), held_out)
