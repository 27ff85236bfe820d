"""`sesurgery apply`: surgery."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("apply")
@click.argument("spec", type=click.Path(path_type=Path))
def command(spec: Path) -> None:
    """Insert the blocks, prove that they run, and write a run: runs/NAME/ with spec, plan and weights."""
    from sesurgery import pipeline

    applied = pipeline.apply(pipeline.load_spec(spec), pipeline.Workspace(), spec.as_posix())
    for warning in applied.planned.plan.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{applied.planned.summary()} -> {applied.folder.as_posix()}")
