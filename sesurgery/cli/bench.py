"""`sesurgery bench`: the latency report."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import as_json, emit_json, foreign, newest, talking, trust


def _sizes(context: click.Context, option: click.Parameter, given: str | None) -> tuple[int, ...]:
    """`1,8` as numbers."""
    if given is None:
        return ()
    if not all(part.strip().isdecimal() and int(part) for part in given.split(",")):
        raise click.BadParameter(f"{given!r} is no list of batch sizes; write them as 1,8")
    return tuple(dict.fromkeys(int(part) for part in given.split(",")))


@click.command("bench")
@click.argument("engine", required=False, type=click.Path(path_type=Path), metavar="[ENGINE]")
@click.option(
    "--against", type=click.Path(path_type=Path), help="Default: the plain network's engine, built if need be."
)
@click.option("--batch", "batches", callback=_sizes, metavar="N[,N]", help="Batches to time; default: the spec's.")
@click.option(
    "--processes", type=click.IntRange(min=1), help="Repeat it in so many fresh processes; default: the spec's."
)
@click.option("--as-exported/--no-as-exported", default=True, help="Race the engine without lowering too, or not.")
@foreign
@as_json
@trust
def command(
    engine: Path | None,
    against: Path | None,
    batches: tuple[int, ...],
    processes: int | None,
    as_exported: bool,
    foreign: bool,
    as_json: bool,
) -> None:
    """Time an engine (default: the newest) in turn with another one, and write the run's report.

    The other one is the plain network's engine; the engine of the same network without lowering runs beside them.
    """
    from sesurgery import pipeline
    from sesurgery.reports.latency import to_json, to_text

    workspace = pipeline.Workspace()
    chosen = engine or newest("engine", workspace.newest_engine())
    with talking() as talk:
        benched = pipeline.bench(
            chosen,
            workspace,
            against,
            talk,
            foreign=foreign,
            batches=batches,
            processes=processes,
            as_exported=as_exported,
        )
    reported = pipeline.write_report(benched.run, workspace)
    if as_json:
        engine_json = {
            "engine": chosen.as_posix(),
            "against": benched.against.as_posix(),
            "as_exported": benched.as_exported and benched.as_exported.as_posix(),
        }
        emit_json({"engines": [{**engine_json, **to_json(section)} for section in benched.sections]})
    else:
        click.echo(f"{chosen.as_posix()} against {benched.against.as_posix()}")
        for section in benched.sections:
            click.echo(to_text(section))
    click.echo(f"report -> {reported.html.as_posix()}", err=as_json)
