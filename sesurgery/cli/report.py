"""`sesurgery report`: what was measured of runs, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesurgery.cli.console import as_json, emit_json, newest, trust
from sesurgery.cli.gating import Checks, gating

if TYPE_CHECKING:
    from sesurgery.pipeline import Workspace
    from sesurgery.reports.junit import Check
    from sesurgery.reports.model import RunReport


@click.command("report")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN...]")
@click.option("--serve", is_flag=True, help="Serve it at a local address until ^C; each request writes it again.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="With --serve: the port. Default: a free one.")
@gating("sesurgery report")
@as_json
@trust
def command(
    runs: tuple[Path, ...],
    serve: bool,
    port: int,
    checks: Checks,
    as_json: bool,
) -> None:
    """Write the report of a run (default: the newest), or of several runs side by side.

    It holds what was measured so far; nothing is measured or loaded here. One run's report goes into its folder, the
    comparison of several into runs/, as a page, as Markdown and as JSON.
    """
    from sesurgery import pipeline
    from sesurgery.reports import to_json, to_text
    from sesurgery.reports.github import to_github
    from sesurgery.reports.pages import runs as side_by_side

    checks.claim()
    workspace = pipeline.Workspace()
    chosen = runs or (newest("run", workspace.newest_run()),)
    if len(chosen) == 1:
        written = pipeline.write_report(chosen[0], workspace)
        reports: tuple[RunReport, ...] = (written.report,)
        paths = (written.html, written.markdown, written.json)
        text, data = to_text(written.report), to_json(written.report)
    else:
        several = pipeline.write_comparison(chosen, workspace)
        reports, paths = several.reports, (several.html, several.markdown, several.json)
        text, data = side_by_side.to_text(reports), side_by_side.to_json(reports)
    emit_json(data) if as_json else click.echo(text)
    click.echo(f"report -> {', '.join(path.as_posix() for path in paths)}", err=True)
    found = [(report, _asked(report, checks)) for report in reports]
    summary = "".join(to_github(report, each) for report, each in found)
    checks.judge([check for _, each in found for check in each], summary)
    if serve:
        _serve(chosen, workspace, port)


def _asked(report: RunReport, checks: Checks) -> list[Check]:
    if not report.latency:
        return checks.of(report.title, None)
    return [
        check for section in report.latency for check in checks.of(f"{report.title}: {section.title}", section.report)
    ]


def _serve(runs: tuple[Path, ...], workspace: Workspace, port: int) -> None:
    """Answer until ^C, with what has been measured by then."""
    from sesurgery import pipeline
    from sesurgery.reports import server

    made = server.server(pipeline.report_pages(runs, workspace), port)
    click.echo(f"{server.address(made)}  (^C ends it)")
    try:
        made.serve_forever()
    except KeyboardInterrupt:
        click.echo("", err=True)
    finally:
        made.server_close()
