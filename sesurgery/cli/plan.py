"""`sesurgery plan`: where blocks would go, and why not elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesurgery.cli.console import SpecFile, as_json, emit_json, force, spec_of, talking
from sesurgery.cli.inspect_ import account_choices, account_options

if TYPE_CHECKING:
    from sesurgery.counting import Convention
    from sesurgery.pipeline.plan import NetworkPlan
    from sesurgery.verification.cost import Prices


@click.command("plan")
@click.argument("spec", type=SpecFile())
@click.option("--explain", is_flag=True, help="List every rejected candidate and every module that is not traced into.")
@click.option(
    "--svg", type=click.Path(path_type=Path, dir_okay=False), help="Draw the network and its blocks to a file."
)
@click.option(
    "--price",
    "backend",
    metavar="BACKEND",
    help="Measure what each block costs, with untrained engines of this backend.",
)
@click.option("--precision", default="fp32", help="With --price: precision of the engines. Default: fp32.")
@click.option("--batch", type=click.IntRange(min=1), default=1, help="With --price: batch size to time. Default: 1.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    help="With --price: time for narrowing the intervals, after the first races. Default: 30.",
)
@force
@account_options
@as_json
def command(
    spec: Path,
    explain: bool,
    svg: Path | None,
    backend: str | None,
    precision: str,
    batch: int,
    seconds: float | None,
    force: bool,
    account: bool,
    depth: int | None,
    convention: Convention | None,
    as_json: bool,
) -> None:
    """Resolve a spec against its network and show every site; nothing is written but the picture asked for."""
    choices = account_choices(account, depth, convention)
    from sesurgery import pipeline

    # First: a mistake in it is told at once, before torch is imported.
    loaded = spec_of(spec)
    planned = pipeline.plan(loaded)
    from sesurgery.reports.text import accounts

    priced = _priced(planned, backend, precision, batch, seconds) if backend else None
    if svg is not None:
        words = _labels(priced) if priced else None
        click.echo(f"picture -> {pipeline.draw(planned, svg, prices=words, force=force).as_posix()}", err=True)
    counted = pipeline.account_of_plan(planned, **choices) if account else None
    if as_json:
        more = {"account": accounts.to_json(counted)} if counted else {}
        emit_json(planned.to_dict() | more | ({"prices": _as_json(priced)} if priced else {}))
        return
    click.echo(planned.plan.table())
    click.echo(planned.plan.stage_line())
    for warning in planned.plan.warnings:
        click.echo(f"warning: {warning}", err=True)
    for note in planned.notes:
        click.echo(f"note: {note}", err=True)
    if counted:
        click.echo(f"\n{accounts.to_text(counted)}\n")
    if priced:
        from sesurgery.reports.text import prices

        click.echo(f"\n{prices.to_text(priced)}")
    _tell_rejections(planned, explain)
    click.echo(planned.summary())


def _labels(priced: Prices) -> dict[str, tuple[float, str]]:
    # A plan without prices imports nothing of engines.
    from sesurgery.reports.text import prices

    return prices.labels(priced)


def _as_json(priced: Prices) -> dict[str, object]:
    from sesurgery.reports.text import prices

    return prices.to_json(priced)


def _priced(planned: NetworkPlan, backend: str, precision: str, batch: int, seconds: float | None) -> Prices:
    from sesurgery import pipeline

    sizes = {"min": batch, "opt": batch, "max": max(batch, 64)}
    wanted = pipeline.engine({"backend": backend, "precision": precision, "batch": sizes})
    with talking() as talk:
        return pipeline.price_plan(planned, wanted, batch=batch, seconds=seconds, talk=talk)


def _tell_rejections(planned: NetworkPlan, explain: bool) -> None:
    rejected = planned.plan.rejected
    if explain:
        click.echo(f"\nturned down: {len(rejected)}")
        for item in rejected:
            click.echo(f"  {item.rule}: {item.reason}")
        click.echo(f"taken as a whole when tracing: {len(planned.network.leaves)}")
        for leaf in planned.network.leaves:
            click.echo(f"  {leaf.reason}")
    elif rejected:
        click.echo(f"{len(rejected)} candidates turned down (--explain says why)", err=True)
