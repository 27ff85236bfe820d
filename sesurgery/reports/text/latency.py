"""A latency report as printed text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sesurgery.reports.model import LatencySection, PartTimes
from sesurgery.reports.text import service
from sesurgery.reports.wording import (
    change,
    fields,
    markdown,
    markdown_table,
    milliseconds,
    percent,
    plural,
)
from sesurgery.tables import aligned
from sesurgery.verification.estimates import Tax
from sesurgery.verification.latency import EngineTiming, LatencyReport
from sesurgery.verification.service import EngineService

COLUMNS = (
    ("median", "median_seconds"),
    ("mean", "mean_seconds"),
    ("min", "min_seconds"),
    ("p90", "p90_seconds"),
    ("p95", "p95_seconds"),
    ("p99", "p99_seconds"),
    ("max", "max_seconds"),
    ("std", "std_seconds"),
)


def to_text(section: LatencySection) -> str:
    """The report for a terminal: statistics by line, engines by column, the tax, the doubt."""
    report = section.report
    header, rows = table(report)
    turned = [["ms", *(row[0] for row in rows)]]
    turned += [[name, *(row[column] for row in rows)] for column, name in enumerate(header) if column]
    lines = [f"{section.title}: {protocol(section)}", *(f"  {line}" for line in aligned(turned))]
    lines += findings(report)
    lines += section.parts
    if section.services:
        lines += [*_served(section.services), *service.findings(section.services)]
    return "\n".join([*lines, *filter(None, [report.doubt])]) + "\n"


def _served(found: Sequence[EngineService]) -> list[str]:
    started = aligned([service.COLD, *service.cold(found)])
    streams = aligned([service.HEADER, *service.table(found)])
    lines = ["cold, in a fresh process:", *(f"  {line}" for line in started)]
    return [*lines, "streams:", *(f"  {line}" for line in streams)]


def to_markdown(section: LatencySection) -> str:
    """The report as a Markdown section without its heading's level: table, tax, doubt."""
    lines = [f"{markdown(protocol(section))}. Times in milliseconds.", "", *markdown_table(*table(section.report)), ""]
    for number, finding in enumerate(findings(section.report)):
        lines += [f"**{finding}.**" if number == 0 else f"{markdown(finding)}.", ""]
    if section.parts:
        lines += ["```text", *section.parts, "```", ""]
    if section.services:
        lines += [*markdown_table(service.COLD, service.cold(section.services)), ""]
        lines += [*markdown_table(service.HEADER, service.table(section.services)), ""]
        lines += [f"{markdown(finding)}.\n" for finding in service.findings(section.services)]
    if section.report.doubt:
        lines.append(f"> {markdown(section.report.doubt)}")
    return "\n".join(lines).rstrip() + "\n"


def to_json(section: LatencySection) -> dict[str, object]:
    """One batch as plain JSON data: each engine in trtexec's words, the costs, and under `report` every raw time."""
    report = section.report
    served = {each.name: service.to_json(each) for each in section.services}
    parts = {each.name: _parts_json(each) for each in section.part_times}
    return {
        "batch": report.batch,
        "threads": section.threads,
        "lowered": _engine_json(report.candidate, report.tax, served, parts),
        "as_exported": report.as_exported and _engine_json(report.as_exported, report.as_exported_tax, served, parts),
        "plain": report.baseline and _engine_json(report.baseline, None, served, parts),
        "tax": _tax_json(report.tax),
        "lowering": _tax_json(report.lowering),
        **fields(section),
        "service": served.get(report.candidate.name),
    }


Named = Mapping[str, dict[str, object]]
"""Something of each engine by its name."""


def _engine_json(timing: EngineTiming, tax: Tax | None, served: Named, parts: Named) -> dict[str, object]:
    stats = timing.stats
    return {
        "latency_ms": service.latency_ms(stats),
        "throughput_qps": 1 / stats.mean_seconds,
        "tax": _tax_json(tax),
        "parts": parts.get(timing.name),
        "service": served.get(timing.name),
    }


def _parts_json(each: PartTimes) -> dict[str, object]:
    """By the names of trtexec's exported times, its copies in and out in `latency_ms`."""
    times = {f"{part}_ms": service.in_milliseconds(np.array(seconds)) for part, seconds in each.seconds.items()}
    return {"throughput_qps": each.throughput_qps, **times}


def _tax_json(tax: Tax | None) -> dict[str, object] | None:
    if tax is None:
        return None
    return {"value": tax.value, "low": tax.low, "high": tax.high, "confidence": tax.confidence, "per": "time"}


def table(report: LatencyReport) -> tuple[list[str], list[list[str]]]:
    """Header and one line an engine, times in milliseconds; with a baseline a last line holds the differences."""
    header = ["engine", *(name for name, _ in COLUMNS), "variation", "samples/s"]
    rows = [
        [
            timing.name,
            *(milliseconds(getattr(timing.stats, field), timing.stats.median_seconds) for _, field in COLUMNS),
            percent(timing.variation),
            throughput(timing),
        ]
        for timing in report.engines
    ]
    if report.baseline:
        ours, theirs = report.candidate.stats, report.baseline.stats
        differences = [_relative(getattr(ours, field), getattr(theirs, field)) for _, field in COLUMNS]
        # The ratio of two spreads says nothing about cost.
        differences[-1] = ""
        rows.append(["difference", *differences, "", _relative(ours.samples_per_second, theirs.samples_per_second)])
    return header, rows


def protocol(section: LatencySection) -> str:
    """How it was measured, in one line."""
    report = section.report
    order = "rounds in alternating order" if report.baseline else "rounds"
    inside = f" in {plural(report.processes, 'fresh process')}" if report.processes > 1 else ""
    return (
        f"{section.mode}; batch {report.batch}, loaded afresh {report.placements} times{inside}, "
        f"{report.rounds} {order}, {report.repeats} runs an engine in each, "
        f"{report.warmup_seconds:g} s warm-up, {report.wall_seconds:.1f} s in all"
    )


def findings(report: LatencyReport) -> list[str]:
    """What the race found, the SE tax first: one line each, nothing if there is no baseline."""
    lines = []
    if report.tax:
        lines.append(f"SE tax {tax_text(report.tax)}")
    if report.as_exported_tax:
        lines.append(f"as exported, SE tax {tax_text(report.as_exported_tax)}")
    if report.lowering:
        lines.append(f"lowering changes the time with blocks by {tax_text(report.lowering)}")
    return lines


def tax_text(tax: Tax) -> str:
    """`+9.8 % (95 % interval +8.9 % to +10.6 %, 12 placements)`; one that includes zero says so."""
    interval = f"{percent(tax.confidence)} interval {change(tax.low)} to {change(tax.high)}"
    over = plural(len(tax.per_placement), "placement") if tax.per_placement else plural(len(tax.per_round), "round")
    inside = f" in {plural(tax.processes, 'process')}" if tax.processes > 1 else ""
    zero = ", includes zero" if tax.includes_zero else ""
    return f"{change(tax.value)} ({interval}{zero}, {over}{inside})"


def throughput(timing: EngineTiming) -> str:
    rate = timing.stats.samples_per_second
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _relative(ours: float, theirs: float) -> str:
    return change(ours / theirs - 1) if theirs else ""
