"""Several runs side by side: as a page, as Markdown, as JSON and as text. Everything is read from their reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sesurgery.reports.model import LatencySection, RunReport
from sesurgery.reports.pages import run
from sesurgery.reports.pages.top1_interval import interval
from sesurgery.reports.text.latency import tax_text
from sesurgery.reports.wording import change, count, growth, markdown, markdown_table, milliseconds, percent, plural
from sesurgery.tables import aligned
from sesurgery.verification.estimates import Tax

RUNS = ("run", "network", "blocks", "parameters", "MACs", "top-1", "interval", "parity")
RACES = ("run", "engine", "median, ms", "p99, ms", "SE tax", "interval", "as exported", "samples/s")
MARK = "made by sesurgery report"
"""The mark by which a comparison that this program wrote is recognised."""


def to_text(reports: Sequence[RunReport]) -> str:
    """Both tables for a terminal, and what stands against comparing them."""
    parts = [aligned([RUNS, *runs(reports)])]
    if rows := races(reports):
        parts.append(aligned([RACES, *rows]))
    parts.append([f"warning: {warning}" for warning in warnings(reports)])
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def to_markdown(reports: Sequence[RunReport]) -> str:
    """The tables as GitHub Markdown."""
    lines = [f"<!-- {MARK} -->", f"# {title(reports)}", "", *(f"- {markdown(line)}" for line in findings(reports)), ""]
    lines += [*markdown_table(RUNS, runs(reports)), ""]
    if rows := races(reports):
        lines += [*markdown_table(RACES, rows), ""]
    lines += [f"> {markdown(warning)}\n" for warning in warnings(reports)]
    return "\n".join(lines).rstrip() + "\n"


def to_json(reports: Sequence[RunReport]) -> dict[str, object]:
    """Every run's report as it is written for the run alone."""
    return {
        "schema_version": 1,
        "kind": MARK,
        "findings": findings(reports),
        "warnings": warnings(reports),
        "runs": [run.to_json(report) for report in reports],
    }


def to_html(reports: Sequence[RunReport], links: Mapping[str, str] | None = None) -> str:
    """One self-contained page; `links` leads from a run's title to its own page."""
    from sesurgery.reports.pages.page import environment
    from sesurgery.reports.plots import runs as runs_plots

    return (
        environment()
        .get_template("runs.html")
        .render(
            title=title(reports),
            findings=findings(reports),
            warnings=warnings(reports),
            links=links or {},
            runs_header=RUNS,
            runs_rows=runs(reports),
            races_header=RACES,
            races_rows=races(reports),
            plots=runs_plots.plots(reports),
        )
    )


def title(reports: Sequence[RunReport]) -> str:
    """`3 runs side by side`."""
    return f"{plural(len(reports), 'run')} side by side"


def runs(reports: Sequence[RunReport]) -> list[list[str]]:
    """A row of `RUNS` for each."""
    return [
        [
            report.title,
            report.network.model,
            str(len(report.network.sites)),
            f"{count(report.network.params_after)} "
            f"({growth(report.network.params_before, report.network.params_after)})",
            f"{count(report.network.macs_after)} ({growth(report.network.macs_before, report.network.macs_after)})",
            percent(report.training.top1, 2) if report.training else "-",
            _interval(report),
            _engines(report),
        ]
        for report in reports
    ]


def _engines(report: RunReport) -> str:
    """`2 of 3 passed, 1 FAILED`."""
    outcomes = [engine.passed for engine in report.engines]
    failed = f", {outcomes.count(False)} FAILED" if False in outcomes else ""
    return f"{outcomes.count(True)} of {len(outcomes)} passed{failed}" if outcomes else "no engine"


def races(reports: Sequence[RunReport]) -> list[list[str]]:
    """A row of `RACES` for each race of each run."""
    return [_race(report, section) for report in reports for section in report.latency]


def _race(report: RunReport, section: LatencySection) -> list[str]:
    stats, tax, before = section.report.candidate.stats, section.report.tax, section.report.as_exported_tax
    return [
        report.title,
        section.title,
        milliseconds(stats.median_seconds),
        milliseconds(stats.p99_seconds, stats.median_seconds),
        change(tax.value) if tax else "-",
        f"{change(tax.low)} to {change(tax.high)}" if tax else "-",
        change(before.value) if before else "-",
        f"{stats.samples_per_second:,.0f}",
    ]


def findings(reports: Sequence[RunReport]) -> list[str]:
    """What is most accurate, what is fastest, and which blocks cost least; one line each."""
    lines = []
    trained = [report for report in reports if report.training]
    if len(trained) > 1:
        best = max(trained, key=lambda report: report.training.top1 if report.training else 0.0)
        assert best.training is not None
        lines.append(f"most accurate: {best.title}, {percent(best.training.top1, 2)} of the held-out samples")
    timed = [(report, section) for report in reports for section in report.latency]
    if len(timed) > 1:
        report, section = min(timed, key=lambda each: each[1].report.candidate.stats.median_seconds)
        seconds = section.report.candidate.stats.median_seconds
        lines.append(f"fastest: {report.title} on {section.title}, {milliseconds(seconds)} ms a run")
    taxed: list[tuple[RunReport, LatencySection, Tax]] = [
        (report, section, section.report.tax) for report, section in timed if section.report.tax
    ]
    if len(taxed) > 1:
        report, section, tax = min(taxed, key=lambda each: each[2].value)
        lines.append(f"blocks cost least: {report.title} on {section.title}, {tax_text(tax)}")
    return lines


def warnings(reports: Sequence[RunReport]) -> list[str]:
    """Why figures of these runs may not be compared, and those that are doubtful by themselves."""
    found = [
        f"{report.title}, {section.title}: {section.report.doubt}"
        for report in reports
        for section in report.latency
        if section.report.doubt
    ]
    if len({report.provenance.device for report in reports}) > 1:
        found.append(
            "the runs are of different machines: compare their taxes, which are of one machine each, not times"
        )
    if len({(section.mode, section.report.batch) for report in reports for section in report.latency}) > 1:
        found.append("engines were timed with different threads or batches")
    if len({report.training.data for report in reports if report.training}) > 1:
        found.append("the runs were trained on different data: their top-1 is of different samples")
    return found


def _interval(report: RunReport) -> str:
    found = interval(report)
    return "-" if found is None else f"{percent(found[0])} to {percent(found[1])}"
