"""`sesurgery compare`: one run against another."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import as_json, emit_json, trust
from sesurgery.cli.gates import SUFFIXES


@click.command("compare")
@click.argument("first", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("second", type=click.Path(path_type=Path), metavar="RUN")
@click.option(
    "--accuracy",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Compare the epochs needed to reach this held-out top-1 (default: the highest that both reached).",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw both learning curves (.png, .svg or .pdf).",
)
@as_json
@trust
def command(first: Path, second: Path, accuracy: float | None, picture: Path | None, as_json: bool) -> None:
    """Test whether the first run is better or worse than the second on the same held-out samples."""
    if picture is not None and picture.suffix not in SUFFIXES:
        raise click.UsageError(f"--picture writes {', '.join(SUFFIXES)}, not {picture.name!r}")
    from sesurgery import pipeline
    from sesurgery.reports.comparison import to_text
    from sesurgery.reports.wording import fields

    found = pipeline.compare(first, second, accuracy)
    if picture is not None:
        from sesurgery.artifacts import writing
        from sesurgery.reports.evaluation_plots import convergence

        curves = [(folder.as_posix(), pipeline.learning_curve(folder)) for folder in (first, second)]
        with writing(picture) as temporary:
            convergence(curves, temporary, picture.suffix.removeprefix("."))
        click.echo(f"picture -> {picture.as_posix()}", err=True)
    if as_json:
        emit_json({"first": first.as_posix(), "second": second.as_posix(), **fields(found)})
    else:
        click.echo(to_text(first.as_posix(), second.as_posix(), found))
