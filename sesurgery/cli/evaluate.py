"""`sesurgery evaluate`: how good runs are."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import as_json, emit_json, newest, trust


@click.command("evaluate")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN...]")
@as_json
@trust
def command(runs: tuple[Path, ...], as_json: bool) -> None:
    """Print top-1, top-3, top-5, loss and calibration of runs on held-out samples; with --json also each class.

    Default: the newest run.
    """
    from sesurgery import pipeline
    from sesurgery.reports.scores import to_text
    from sesurgery.reports.wording import fields

    folders = runs or (newest("run", pipeline.Workspace().newest_run()),)
    found = {folder.as_posix(): pipeline.evaluate(folder) for folder in folders}
    if as_json:
        emit_json({"runs": [{"run": run, **fields(scores)} for run, scores in found.items()]})
    else:
        click.echo(to_text(found))
