"""What SE gains and costs, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sesurgery.diagnostics import Diagnostic
from sesurgery.reports.wording import change, milliseconds, percent, plural
from sesurgery.tables import aligned
from sesurgery.verification.estimates import Tax
from sesurgery.verification.latency import LatencyReport
from sesurgery.verification.paired import Gain


@dataclass(frozen=True)
class Learned:
    """Top-1 of one network with blocks and of its plain twin, which was trained in the same way, and the difference."""

    what: str
    with_blocks: float
    without: float
    gain: Gain


@dataclass(frozen=True)
class Price:
    """One backend's race: what the blocks cost as exported (None if nothing is lowered) and after lowering."""

    engine: str
    seconds: float
    lowered: Tax
    as_exported: Tax | None
    doubt: str | None


def price(engine: str, report: LatencyReport) -> Price:
    """The price that a race against the plain network's engine found."""
    if report.tax is None:
        raise ValueError("a race without a baseline has no price")
    return Price(engine, report.candidate.stats.median_seconds, report.tax, report.as_exported_tax, report.doubt)


def to_text(learned: Learned, where: str, prices: Sequence[Price], failures: Sequence[Diagnostic]) -> str:
    """The verdict for a terminal; `where` says of what network, size and machine the prices are.

    What fell short comes first, with what to do; then accuracy, cost, the engine to take, and what is doubtful.
    """
    lines = [*_short(failures), *_accuracy(learned), *_cost(where, prices), *_advice(prices)]
    return "\n".join(lines) + "\n"


def _short(failures: Sequence[Diagnostic]) -> list[str]:
    if not failures:
        return []
    criteria = plural(len(failures), "criterion").replace("criterions", "criteria")
    return [
        f"first: do not ship what falls short of its parity ({criteria} missed):",
        *(f"  {failure.message}" for failure in failures),
        "  build it in a wider precision (`sesurgery build-engine --fp16`), or calibrate it on more samples",
        "",
    ]


def _accuracy(learned: Learned) -> list[str]:
    found = learned.gain
    interval = f"{percent(found.confidence)} interval {_points(found.low)} to {_points(found.high)}"
    over = f"{found.samples} held-out samples, {plural(found.trainings, 'training')} each"
    told = "which is not a difference that these samples can tell" if found.includes_zero else "a difference"
    return [
        f"accuracy, {learned.what}: {percent(learned.with_blocks)} with SE, {percent(learned.without)} without",
        f"  {_points(found.value)} points ({interval}; {over}), {told}",
    ]


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _cost(where: str, prices: Sequence[Price]) -> list[str]:
    if not prices:
        return [f"cost, {where}: no engine could be timed here"]
    rows = [["  engine", "with SE", "SE costs as exported", "after lowering"]]
    rows += [
        [f"  {item.engine}", f"{milliseconds(item.seconds)} ms", _tax(item.as_exported), _tax(item.lowered)]
        for item in prices
    ]
    return [f"cost in time, {where}:", *aligned(rows)]


def _tax(tax: Tax | None) -> str:
    return f"{change(tax.value)} ({change(tax.low)} to {change(tax.high)})" if tax else "the same"


def _advice(prices: Sequence[Price]) -> list[str]:
    if not prices:
        return []
    best = min(prices, key=lambda item: item.seconds)
    lines = [f"take {best.engine}: {'the fastest of these' if len(prices) > 1 else 'the one that runs here'}"]
    doubts = [item.doubt for item in (best, *prices) if item.doubt]
    return lines + doubts[:1]
