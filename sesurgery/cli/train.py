"""`sesurgery train`: training, and going on with it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sesurgery.cli.console import newest, spec_of, talking, trust
from sesurgery.cli.exits import INTERRUPTED


@click.command("train")
@click.argument("target", required=False, type=click.Path(path_type=Path), metavar="[RUN|SPEC]")
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
@trust
def command(target: Path | None, resume: bool) -> None:
    """Train a run (default: the newest) by its spec; a spec is applied first."""
    from sesurgery import pipeline

    workspace = pipeline.Workspace()
    if target is None:
        folder = newest("run", workspace.newest_run())
    elif target.suffix in (".yaml", ".yml"):
        folder = pipeline.apply(spec_of(target), workspace, target.as_posix()).folder
    else:
        folder = target
    with talking() as talk:
        trained = pipeline.train(folder, resume=resume, talk=talk)
    result = trained.result
    if result.interrupted:
        done = f"{len(result.epochs)} of {trained.epochs} epochs"
        click.echo(f"interrupted after {done}; go on with: sesurgery train {folder.as_posix()} --resume", err=True)
        sys.exit(INTERRUPTED)
    count = f"{len(result.epochs)} epoch{'s' * (len(result.epochs) != 1)}"
    click.echo(f"{count}, held-out top-1 {result.top1 or 0:.2%} -> {folder.as_posix()}")
