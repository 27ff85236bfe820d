"""`sesurgery plan`: where blocks would go, and why not elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesurgery.cli.console import SpecFile, as_json, emit_json, force, spec_of
from sesurgery.cli.inspect_ import account_choices, account_options

if TYPE_CHECKING:
    from sesurgery.counting import Convention
    from sesurgery.pipeline.plan import NetworkPlan


@click.command("plan")
@click.argument("spec", type=SpecFile())
@click.option("--explain", is_flag=True, help="List every rejected candidate and every module taken as a whole.")
@click.option(
    "--svg", type=click.Path(path_type=Path, dir_okay=False), help="Draw the network and its blocks to a file."
)
@force
@account_options
@as_json
def command(
    spec: Path,
    explain: bool,
    svg: Path | None,
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
    from sesurgery.reports import accounts

    if svg is not None:
        click.echo(f"picture -> {pipeline.draw(planned, svg, force=force).as_posix()}", err=True)
    counted = pipeline.account_of_plan(planned, **choices) if account else None
    if as_json:
        emit_json(planned.to_dict() | ({"account": accounts.to_json(counted)} if counted else {}))
        return
    click.echo(planned.plan.table())
    click.echo(planned.plan.stage_line())
    for warning in planned.plan.warnings:
        click.echo(f"warning: {warning}", err=True)
    if counted:
        click.echo(f"\n{accounts.to_text(counted)}\n")
    _tell_rejections(planned, explain)
    click.echo(planned.summary())


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
