"""A latency report as printed text, Markdown and JSON."""

from __future__ import annotations

from sesurgery.reports.model import LatencySection
from sesurgery.reports.wording import change, fields, markdown, markdown_table, milliseconds, percent, text_table
from sesurgery.verification.latency import EngineTiming, LatencyReport

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
    """The report for a terminal: statistics by line, engines by column, the tax, the warnings."""
    report = section.report
    header, rows = table(report)
    turned = [["ms", *(row[0] for row in rows)]]
    turned += [[name, *(row[column] for row in rows)] for column, name in enumerate(header) if column]
    lines = [f"{section.title}: {protocol(section)}", *(f"  {line}" for line in text_table(turned))]
    if report.tax:
        lines.append(f"SE tax {tax_text(report)}")
    lines += section.parts
    return "\n".join(lines + [f"warning: {warning}" for warning in report.warnings]) + "\n"


def to_markdown(section: LatencySection) -> str:
    """The report as a Markdown section without its heading's level: table, tax, warnings."""
    lines = [f"{markdown(protocol(section))}. Times in milliseconds.", "", *markdown_table(*table(section.report)), ""]
    if section.report.tax:
        lines += [f"**SE tax {tax_text(section.report)}.**", ""]
    if section.parts:
        lines += ["```text", *section.parts, "```", ""]
    lines += [f"- Warning: {markdown(warning)}" for warning in section.report.warnings]
    return "\n".join(lines).rstrip() + "\n"


def to_json(section: LatencySection) -> dict[str, object]:
    """Everything in the report as plain JSON data, raw times in seconds included."""
    return fields(section)


def table(report: LatencyReport) -> tuple[list[str], list[list[str]]]:
    """Header and one line an engine, times in milliseconds; with a baseline a last line holds the differences."""
    header = ["engine", *(name for name, _ in COLUMNS), "variation", "samples/s"]
    rows = [
        [
            timing.name,
            *(milliseconds(getattr(timing.stats, field), timing.stats.median_seconds) for _, field in COLUMNS),
            percent(timing.stats.coefficient_of_variation),
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
    return (
        f"{section.mode}; batch {report.batch}, {report.rounds} {order}, {report.repeats} runs an engine in each, "
        f"{report.warmup_seconds:g} s warm-up, {report.wall_seconds:.1f} s in all"
    )


def tax_text(report: LatencyReport) -> str:
    """`+9.8 % (95 % interval +8.9 % to +10.6 %, 60 paired rounds)`; empty where there is no baseline."""
    tax = report.tax
    if tax is None:
        return ""
    interval = f"{percent(tax.confidence)} interval {change(tax.low)} to {change(tax.high)}"
    return f"{change(tax.value)} ({interval}, {len(tax.per_round)} paired rounds)"


def throughput(timing: EngineTiming) -> str:
    rate = timing.stats.samples_per_second
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _relative(ours: float, theirs: float) -> str:
    return change(ours / theirs - 1) if theirs else ""
