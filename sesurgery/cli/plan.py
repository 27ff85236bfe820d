"""`sesurgery plan`: where blocks would go, and why not elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import as_json, emit_json


@click.command("plan")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--explain", is_flag=True, help="List every rejected candidate and every module taken as a whole.")
@click.option(
    "--svg", type=click.Path(path_type=Path, dir_okay=False), help="Draw the network and its blocks to a file."
)
@as_json
def command(spec: Path, explain: bool, svg: Path | None, as_json: bool) -> None:
    """Resolve a spec against its network and show every site; nothing is written but the picture asked for."""
    from sesurgery import pipeline

    planned = pipeline.plan(pipeline.load_spec(spec))
    if svg is not None:
        click.echo(f"picture -> {pipeline.draw(planned, svg).as_posix()}", err=True)
    if as_json:
        emit_json(planned.to_dict())
        return
    click.echo(planned.plan.table())
    click.echo(planned.plan.stage_line())
    for warning in planned.plan.warnings:
        click.echo(f"warning: {warning}", err=True)
    if explain:
        click.echo(f"\nturned down: {len(planned.plan.rejected)}")
        for item in planned.plan.rejected:
            click.echo(f"  {item.rule}: {item.where}: {item.why}")
        click.echo(f"taken as a whole when tracing: {len(planned.leaves)}")
        for leaf in planned.leaves:
            click.echo(f"  {leaf.path}: {leaf.why}")
    elif planned.plan.rejected:
        click.echo(f"{len(planned.plan.rejected)} candidates turned down (--explain says why)", err=True)
    click.echo(planned.summary())
