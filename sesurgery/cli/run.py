"""`sesurgery run`: every step from spec to report."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from sesurgery.cli.console import SpecFile, spec_of, talking
from sesurgery.cli.signals import Stopped
from sesurgery.diagnostics import CheckFailed


@click.command("run")
@click.argument("spec", type=SpecFile())
def command(spec: Path) -> None:
    """Do everything from spec to report: apply, train, export, build engines, verify, bench."""
    from sesurgery import pipeline
    from sesurgery.reports import to_text

    # First: a mistake in it is told at once, before torch is imported.
    loaded = spec_of(spec)
    with talking() as talk:
        finished = pipeline.run(loaded, pipeline.Workspace(), spec.as_posix(), talk)
    folder = finished.applied.folder.as_posix()
    if finished.reported is None:
        stopped = finished.trained.result.signal or signal.SIGINT
        raise Stopped(stopped, f"interrupted; continue with: sesurgery train {folder} --resume")
    click.echo(to_text(finished.reported.report))
    click.echo("\nopen these:")
    for path, what in (
        (finished.reported.html, "the report, for a browser"),
        (finished.applied.folder / "plan.json", "where the blocks went"),
        *((item.path, "an engine") for item in finished.built),
    ):
        click.echo(f"  {path.as_posix()}  ({what})")
    if finished.failures:
        raise CheckFailed(finished.failures)
