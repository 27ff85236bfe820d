"""The top of a report: a verdict, the key figures, and what they mean in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sesurgery.reports.model import LatencySection, NetworkSection, RunReport
from sesurgery.reports.text.latency import tax_text
from sesurgery.reports.wording import change, count, growth, percent, plural

Verdict = Literal["passed", "failed", "open"]


@dataclass(frozen=True)
class KeyFigure:
    """A number with what it is and what stands behind it."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class Summary:
    """`verdict` is open where nothing failed but not every engine was compared."""

    verdict: Verdict
    finding: str
    figures: tuple[KeyFigure, ...]
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]


def summarise(report: RunReport) -> Summary:
    """The verdict, the key figures and a few sentences."""
    verdict, finding = _verdict(report)
    return Summary(
        verdict=verdict,
        finding=finding,
        figures=tuple(_figures(report)),
        sentences=tuple(_sentences(report)),
        warnings=tuple(f"{race.title}: {race.report.doubt}" for race in report.latency if race.report.doubt),
    )


def _verdict(report: RunReport) -> tuple[Verdict, str]:
    outcomes = [engine.passed for engine in report.engines]
    total = plural(len(outcomes), "engine")
    if not outcomes:
        return "open", "No engine was built"
    if (missed := outcomes.count(False)) > 0:
        return "failed", (
            "The engine" if outcomes == [False] else f"{missed} of {total}"
        ) + " fell short of the parity asked for"
    if outcomes.count(None) == len(outcomes):
        return "open", "No engine was compared with the model"
    if (kept := outcomes.count(True)) == len(outcomes):
        who = {1: "The engine keeps", 2: "Both engines keep"}.get(kept, f"All {kept} engines keep")
        return "passed", f"{who} the parity asked for"
    return "open", f"{kept} of {total} kept the parity asked for; the others were not compared"


def _figures(report: RunReport) -> list[KeyFigure]:
    network = report.network
    figures = [
        KeyFigure("Blocks inserted", str(len(network.sites)), _where(network)),
        KeyFigure(
            "Parameters",
            growth(network.params_before, network.params_after),
            f"{count(network.params_before)} → {count(network.params_after)}",
        ),
        KeyFigure(
            "MACs",
            growth(network.macs_before, network.macs_after),
            f"{count(network.macs_before)} → {count(network.macs_after)}",
        ),
    ]
    if report.training:
        epochs = plural(len(report.training.epochs), "epoch")
        figures.append(KeyFigure("Top-1", percent(report.training.top1), f"held-out samples, {epochs}"))
    compared = [entry.report for engine in report.engines for entry in engine.parity]
    if compared:
        worst = min(compared, key=lambda parity: parity.agreement)
        detail = f"same answer as the model, {worst.samples:,} samples" + (", worst case" if len(compared) > 1 else "")
        figures.append(KeyFigure("Agreement", percent(worst.agreement), detail))
    return figures + [_tax_figure(race) for race in report.latency if race.report.tax]


def _tax_figure(race: LatencySection) -> KeyFigure:
    tax = race.report.tax
    assert tax is not None
    interval = f"{percent(tax.confidence)} interval {change(tax.low)} to {change(tax.high)}"
    return KeyFigure("SE tax, time", change(tax.value), f"{race.title}; {interval}")


def _where(network: NetworkSection) -> str:
    names = sorted({site.block for site in network.sites})
    stages = sorted({site.stage for site in network.sites if site.stage is not None})
    if not names:
        return "none"
    if not stages:
        return ", ".join(names)
    return f"{', '.join(names)}; {'stage' if len(stages) == 1 else 'stages'} {', '.join(map(str, stages))}"


def _sentences(report: RunReport) -> list[str]:
    network = report.network
    sentences = [
        f"Surgery put {plural(len(network.sites), 'block')} into {network.model}: "
        f"{growth(network.params_before, network.params_after)} parameters and "
        f"{growth(network.macs_before, network.macs_after)} multiply-accumulates."
    ]
    if report.training:
        sentences.append(f"The trained network answers {percent(report.training.top1)} of the held-out samples right.")
    for engine in report.engines:
        if engine.parity:
            share = percent(min(entry.report.agreement for entry in engine.parity))
            words = {True: "keeps its parity", False: "falls short of its parity"}
            word = words[engine.passed] if engine.passed is not None else "was not compared at every batch size"
            sentences.append(f"{engine.name} gives the model's answer on {share} of samples and {word}.")
        else:
            reason = "; ".join(engine.unverified) or engine.not_verified or "no reason was given"
            sentences.append(f"{engine.name} was not compared with the model: {reason}.")
    for race in report.latency:
        tax, before = race.report.tax, race.report.as_exported_tax
        if tax:
            caveat = ", which is not significantly different from no cost" if tax.includes_zero else ""
            exported = f"; without lowering, by {change(before.value)}" if before else ""
            sentences.append(f"With the blocks, time on {race.title} changes by {tax_text(tax)}{caveat}{exported}.")
    return sentences
