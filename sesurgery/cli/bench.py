"""`sesurgery bench`: the latency report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesurgery.cli.console import as_json, emit_json, force, foreign, newest, talking, trust
from sesurgery.diagnostics import CheckFailed, Diagnostic

if TYPE_CHECKING:
    from sesurgery.reports.model import LatencySection
    from sesurgery.verification.limits import Limit

SUITE = "sesurgery bench"


def _sizes(context: click.Context, option: click.Parameter, given: str | None) -> tuple[int, ...]:
    """`1,8` as numbers."""
    if given is None:
        return ()
    if not all(part.strip().isdecimal() and int(part) for part in given.split(",")):
        raise click.BadParameter(f"{given!r} is no list of batch sizes; write them as 1,8")
    return tuple(dict.fromkeys(int(part) for part in given.split(",")))


def _limits(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[Limit, ...]:
    """`tax > 5 %` as a limit."""
    from sesurgery.verification.limits import parse

    try:
        return tuple(parse(text) for text in given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("bench")
@click.argument("engine", required=False, type=click.Path(path_type=Path), metavar="[ENGINE]")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="Engine or ONNX file to race against, built alike if needed. Default: the plain network's.",
)
@click.option("--batch", "batches", callback=_sizes, metavar="N[,N]", help="Batch sizes to time. Default: the spec's.")
@click.option(
    "--processes", type=click.IntRange(min=1), help="Repeat the race in N fresh processes. Default: the spec's."
)
@click.option("--as-exported/--no-as-exported", default=True, help="Also race the engine without lowering.")
@click.option(
    "--fail-if",
    "limits",
    multiple=True,
    callback=_limits,
    metavar="LIMIT",
    help="Exit with 4 if this is true, e.g. 'tax > 5 %' or 'median > 2 ms'. May be repeated.",
)
@click.option(
    "--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write the results of --fail-if as JUnit XML."
)
@click.option("--per-block", is_flag=True, help="Tell what each block costs, by racing the engine without it.")
@force
@foreign
@as_json
@trust
def command(
    engine: Path | None,
    against: Path | None,
    batches: tuple[int, ...],
    processes: int | None,
    as_exported: bool,
    limits: tuple[Limit, ...],
    junit: Path | None,
    per_block: bool,
    force: bool,
    foreign: bool,
    as_json: bool,
) -> None:
    """Time an engine (default: the newest) against another one, and write the run's report.

    The other one is the engine of the plain network. The engine of the same network without lowering runs too.
    ENGINE may be an ONNX file. Of a file that came from no run, name the plain network's with --against.
    """
    from sesurgery import pipeline
    from sesurgery.reports import prices
    from sesurgery.reports.latency import to_json, to_text
    from sesurgery.workspace.targets import claim, marked

    if junit is not None and not limits:
        raise click.UsageError("--junit writes what --fail-if finds: give at least one limit")
    workspace = pipeline.Workspace()
    if junit is not None:
        claim(junit, ours=marked(f'<testsuite name="{SUITE}"'), force=force)
    chosen = engine or newest("engine", workspace.newest_engine())
    with talking() as talk:
        chosen = pipeline.as_engine(chosen, workspace, talk=talk)
        # First, because it refuses engines that came from no run.
        priced = pipeline.price_engine(chosen, foreign=foreign, talk=talk) if per_block else None
        benched = pipeline.bench(
            pipeline.BenchRequest(chosen, workspace, against, talk, foreign, batches, processes, as_exported)
        )
    reported = pipeline.write_report(benched.run, workspace) if benched.run else None
    if as_json:
        engine_json = {
            "engine": chosen.as_posix(),
            "against": benched.against.as_posix(),
            "as_exported": benched.as_exported and benched.as_exported.as_posix(),
        }
        blocks = prices.to_json(priced.prices) if priced else {}
        emit_json({"engines": [{**engine_json, **to_json(section), **_own(blocks)} for section in benched.sections]})
    else:
        click.echo(f"{chosen.as_posix()} against {benched.against.as_posix()}")
        for section in benched.sections:
            click.echo(to_text(section))
        if priced:
            click.echo(prices.to_text(priced.prices))
    if priced:
        click.echo(f"picture -> {priced.picture.as_posix()}", err=as_json)
    if reported:
        click.echo(f"report -> {reported.html.as_posix()}", err=as_json)
    _judge(chosen, benched.sections, limits, junit)


def _own(blocks: dict[str, object]) -> dict[str, object]:
    """The price list beside the race, whose own keys stay what they are."""
    return {"blocks": blocks["blocks"], "prices": blocks} if blocks else {}


def _judge(engine: Path, sections: tuple[LatencySection, ...], limits: tuple[Limit, ...], junit: Path | None) -> None:
    """Write what the limits say of every batch; raises CheckFailed with SE702 for each that is broken."""
    from sesurgery.artifacts import write_text
    from sesurgery.reports.junit import Check, to_junit

    checks = [
        Check(str(limit), f"{engine.name} at batch {section.report.batch}", limit.broken_by(section.report))
        for section in sections
        for limit in limits
    ]
    if junit is not None:
        write_text(junit, to_junit(SUITE, checks))
        click.echo(f"limits -> {junit.as_posix()}", err=True)
    failures = [
        Diagnostic("SE702", f"{check.of}: --fail-if {check.name!r}: {check.failure}")
        for check in checks
        if check.failure
    ]
    if failures:
        raise CheckFailed(failures)
