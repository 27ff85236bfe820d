"""`sesurgery demo`: what the program does, on real data, in some minutes."""

from __future__ import annotations

import time
from pathlib import Path

import click

from sesurgery.cli.console import SpecFile, talking
from sesurgery.cli.signals import Stopped
from sesurgery.diagnostics import CheckFailed


@click.command("demo")
@click.option(
    "--small", default="demo:digits", type=SpecFile(), show_default=True, help="Spec of the network to train."
)
@click.option(
    "--large", default="demo:seresnet50", type=SpecFile(), show_default=True, help="Spec of the network to time."
)
@click.option(
    "--seeds", default=2, show_default=True, type=click.IntRange(min=1), help="Number of seeds to train with."
)
def command(small: Path, large: Path, seeds: int) -> None:
    """Train with SE and without, verify engines, time SE in a large network, and print the result."""
    from sesurgery import pipeline
    from sesurgery.pipeline import DemoRequest
    from sesurgery.pipeline.demo import DemoStopped
    from sesurgery.reports.text import verdict

    started = time.perf_counter()
    with talking() as talk:
        try:
            found = pipeline.demo(DemoRequest(small, large, seeds, pipeline.Workspace(), talk))
        except DemoStopped as stopped:
            raise Stopped(stopped.number, "interrupted; `sesurgery demo` starts again") from stopped
    click.echo("")
    click.echo(verdict.to_text(found.learned, found.where, found.prices, found.failures))
    took = time.perf_counter() - started
    click.echo(f"the report, for a browser: {found.report.as_posix()}  ({took:.0f} s in all)")
    if found.failures:
        raise CheckFailed(found.failures)
