"""`sesurgery bench`: the latency report."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import as_json, emit_json, foreign, newest, talking, trust


@click.command("bench")
@click.argument("engine", required=False, type=click.Path(path_type=Path), metavar="[ENGINE]")
@click.option(
    "--against", type=click.Path(path_type=Path), help="Default: the plain network's engine, built if need be."
)
@foreign
@as_json
@trust
def command(engine: Path | None, against: Path | None, foreign: bool, as_json: bool) -> None:
    """Time an engine (default: the newest) in turn with another one, and write the run's report."""
    from sesurgery import pipeline
    from sesurgery.reports.latency import to_json, to_text

    workspace = pipeline.Workspace()
    chosen = engine or newest("engine", workspace.newest_engine())
    with talking() as talk:
        benched = pipeline.bench(chosen, workspace, against, talk, foreign=foreign)
    reported = pipeline.write_report(benched.run, workspace)
    if as_json:
        emit_json(to_json(benched.section))
    else:
        click.echo(f"{chosen.as_posix()} against {benched.against.as_posix()}")
        click.echo(to_text(benched.section))
    click.echo(f"report -> {reported.html.as_posix()}", err=as_json)
