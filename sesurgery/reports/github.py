"""A run in GitHub's Markdown, for the summary of a job: verdict, key figures, what was gated, and all the rest."""

from __future__ import annotations

from collections.abc import Sequence

from sesurgery.reports.junit import Check
from sesurgery.reports.model import LatencySection, RunReport
from sesurgery.reports.pages import run
from sesurgery.reports.pages.summary import Verdict, summarise
from sesurgery.reports.text import latency
from sesurgery.reports.wording import markdown, markdown_table

ALERTS: dict[Verdict, str] = {"passed": "NOTE", "failed": "CAUTION", "open": "WARNING"}


def to_github(report: RunReport, checks: Sequence[Check] = ()) -> str:
    """The section of one run; a limit that is broken makes it a failure."""
    summary = summarise(report)
    broken = [check for check in checks if check.failure is not None]
    alert = "CAUTION" if broken else ALERTS[summary.verdict]
    lines = [f"## {markdown(report.title)}", "", f"> [!{alert}]", f"> **{markdown(summary.finding)}.**"]
    lines += [f"> {markdown(check.of)}: `{check.name}`: {markdown(check.failure or '')}." for check in broken]
    lines += [
        "",
        *markdown_table(["", "", ""], [[each.label, each.value, each.detail] for each in summary.figures]),
        "",
    ]
    lines += _limits(checks)
    lines += [f"> [!WARNING]\n> {markdown(warning)}\n" for warning in summary.warnings]
    whole = run.sections(report, heading="###")
    return "\n".join([*lines, "<details><summary>The whole report</summary>", "", whole, "", "</details>", ""])


def races_to_github(title: str, sections: Sequence[LatencySection], checks: Sequence[Check] = ()) -> str:
    """The section of an engine that came from no run: its races, and what was gated."""
    lines = [f"## {markdown(title)}", "", *_limits(checks)]
    for section in sections:
        lines += [f"### {markdown(section.title)}", "", latency.to_markdown(section)]
    return "\n".join(lines).rstrip() + "\n\n"


def _limits(checks: Sequence[Check]) -> list[str]:
    rows = [[check.name, check.of, check.failure or "holds"] for check in checks]
    return [*markdown_table(["limit", "of", "result"], rows), ""] if rows else []
