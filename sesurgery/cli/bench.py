"""`sesurgery bench`: the latency report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesurgery.cli.console import as_json, emit_json, foreign, newest, talking, trust
from sesurgery.cli.gating import Checks, gating

if TYPE_CHECKING:
    from sesurgery.pipeline import BenchRequest
    from sesurgery.pipeline.bench.bench import BenchResult
    from sesurgery.reports.model import LatencySection, RunReport
    from sesurgery.verification.cost import Prices


MOST = 1024
"""Threads or streams; a mistyped number would start as many."""


def _sizes(context: click.Context, option: click.Parameter, given: str | None) -> tuple[int, ...]:
    """`1,8` as numbers."""
    if given is None:
        return ()
    if not all(part.strip().isdecimal() and int(part) for part in given.split(",")):
        raise click.BadParameter(f"{given!r} is not a list of {WHAT[option.name or '']}; write them as 1,8")
    found = tuple(dict.fromkeys(int(part) for part in given.split(",")))
    if option.name != "batches" and max(found) > MOST:
        raise click.BadParameter(f"{max(found)} {WHAT[option.name or '']} are more than {MOST}")
    return found


WHAT = {"batches": "batch sizes", "threads": "threads", "streams": "streams"}


@click.command("bench")
@click.argument("engine", required=False, type=click.Path(path_type=Path), metavar="[ENGINE]")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="Engine or ONNX file to race against; a file is built as ENGINE was. Default: the plain network's.",
)
@click.option("--batch", "batches", callback=_sizes, metavar="N[,N]", help="Batch sizes to time. Default: the spec's.")
@click.option(
    "--threads",
    callback=_sizes,
    metavar="N[,N]",
    help="CPU threads to time with, one race for each number. Default: the spec's, else all.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Repeat the race, and --service, in N fresh processes. Default: the spec's.",
)
@click.option("--as-exported/--no-as-exported", default=True, help="Also race the engine without lowering.")
@click.option(
    "--per-block",
    is_flag=True,
    help="Also measure the cost of each block, by racing engines that have half of the blocks against each other.",
)
@click.option(
    "--service",
    is_flag=True,
    help="Also measure cold start, memory and the throughput of several streams (about 4 s for each engine).",
)
@click.option(
    "--streams",
    callback=_sizes,
    metavar="N[,N]",
    help="Numbers of streams to measure; implies --service. Default: one, and one for each core.",
)
@gating("sesurgery bench")
@foreign
@as_json
@trust
def command(
    engine: Path | None,
    against: Path | None,
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    processes: int | None,
    as_exported: bool,
    per_block: bool,
    service: bool,
    streams: tuple[int, ...],
    checks: Checks,
    foreign: bool,
    as_json: bool,
) -> None:
    """Time an engine (default: the newest) against another one, and write the run's report.

    The other one is the engine of the plain network. The engine of the same network without lowering runs too.
    ENGINE may be an ONNX file. If it came from no run, name the plain network's file with --against.
    """
    from sesurgery import pipeline
    from sesurgery.backends import runs_here

    checks.claim()
    workspace = pipeline.Workspace()
    chosen = engine or newest("engine", workspace.newest_engine(runs_here))
    with talking() as talk:
        chosen = pipeline.as_engine(chosen, workspace, talk=talk)
        # First, because it refuses engines that came from no run.
        priced = pipeline.price_engine(chosen, foreign=foreign, talk=talk) if per_block else None
        request = pipeline.BenchRequest(
            chosen,
            workspace,
            against,
            talk,
            foreign,
            batches,
            processes,
            as_exported,
            service or bool(streams),
            threads,
            streams,
        )
        benched = pipeline.bench(request)
    reported = pipeline.write_report(benched.run, workspace) if benched.run else None
    _show(chosen, benched, priced.prices if priced else None, as_json=as_json)
    if priced:
        click.echo(f"picture -> {priced.picture.as_posix()}", err=as_json)
    if reported:
        click.echo(f"report -> {reported.html.as_posix()}", err=as_json)
    _judge(checks, request, benched, reported.report if reported else None)


def _show(engine: Path, benched: BenchResult, prices: Prices | None, *, as_json: bool) -> None:
    from sesurgery.reports.text import prices as price_list
    from sesurgery.reports.text.latency import to_json, to_text

    if as_json:
        engine_json = {
            "engine": engine.as_posix(),
            "against": benched.against.as_posix(),
            "as_exported": benched.as_exported and benched.as_exported.as_posix(),
        }
        blocks = price_list.to_json(prices) if prices else {}
        emit_json({"engines": [{**engine_json, **to_json(section), **_own(blocks)} for section in benched.sections]})
        return
    click.echo(f"{engine.as_posix()} against {benched.against.as_posix()}")
    for section in benched.sections:
        click.echo(to_text(section))
    if prices:
        click.echo(price_list.to_text(prices))


def _judge(checks: Checks, request: BenchRequest, benched: BenchResult, report: RunReport | None) -> None:
    """Ask the limits of every race, and add the report of the run, or the races of a file, to the job's summary."""
    from sesurgery.reports.github import races_to_github, to_github

    engine, swept = request.engine, bool(request.threads)
    found = [
        check
        for section in benched.sections
        for check in checks.of(_raced(engine, section, swept=swept), section.report)
    ]
    checks.judge(found, to_github(report, found) if report else races_to_github(engine.name, benched.sections, found))


def _raced(engine: Path, section: LatencySection, *, swept: bool) -> str:
    """What a limit is asked of: an engine at a batch size, and of a sweep with so many threads."""
    at = f"{engine.name} at batch {section.report.batch}"
    return f"{at} with {section.threads} threads" if swept else at


def _own(blocks: dict[str, object]) -> dict[str, object]:
    """The price list beside the race, whose own keys stay what they are."""
    return {"blocks": blocks["blocks"], "prices": blocks} if blocks else {}
