"""`sesurgery compare`: one run against another."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import as_json, emit_json, trust


@click.command("compare")
@click.argument("first", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("second", type=click.Path(path_type=Path), metavar="RUN")
@click.option(
    "--accuracy",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Compare the epochs needed to reach this held-out top-1 (default: the highest that both reached).",
)
@as_json
@trust
def command(first: Path, second: Path, accuracy: float | None, as_json: bool) -> None:
    """Test whether the first run is better or worse than the second on the same held-out samples."""
    from sesurgery import pipeline
    from sesurgery.reports.comparison import to_text
    from sesurgery.reports.wording import fields

    found = pipeline.compare(first, second, accuracy)
    if as_json:
        emit_json({"first": first.as_posix(), "second": second.as_posix(), **fields(found)})
    else:
        click.echo(to_text(first.as_posix(), second.as_posix(), found))
