"""`sesurgery train`: train a run, or resume training."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import SpecFile, newest, spec_of, talking, trust
from sesurgery.cli.signals import Stopped


@click.command("train")
@click.argument("target", required=False, type=SpecFile(), metavar="[RUN|SPEC]")
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint.")
@click.option("--restart", is_flag=True, help="Start again, discarding earlier training.")
@click.option(
    "--split",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    help="Compute each batch in N parts, to save memory; a step still uses the whole batch.",
)
@trust
def command(target: Path | None, resume: bool, restart: bool, split: int) -> None:
    """Train a run (default: the newest) as its spec says. A spec is applied first."""
    of_spec = target is not None and target.suffix in (".yaml", ".yml")
    if resume and restart:
        raise click.UsageError("--resume continues and --restart starts again: give one of them")
    if of_spec and (resume or restart):
        raise click.UsageError("a spec makes a new run: --resume and --restart go with the folder of a run")
    from sesurgery import pipeline

    workspace = pipeline.Workspace()
    if target is None:
        folder = newest("run", workspace.newest_run())
    elif of_spec:
        loaded = spec_of(target)
        from sesurgery.training.machine import processes

        if processes() > 1:
            text = "several processes share a run that is there: `sesurgery apply SPEC` makes it"
            raise click.UsageError(text)
        folder = pipeline.apply(loaded, workspace, target.as_posix()).folder
    else:
        folder = target
    with talking() as talk:
        request = pipeline.TrainRequest(folder, resume=resume, restart=restart, split=split, talk=talk)
        trained = pipeline.train(request)
    result = trained.result
    if result.signal is not None:
        done = f"{len(result.epochs)} of {trained.epochs} epochs"
        raise Stopped(
            result.signal, f"interrupted after {done}; continue with: sesurgery train {folder.as_posix()} --resume"
        )
    if not trained.leads:
        return
    count = f"{len(result.epochs)} epoch{'s' * (len(result.epochs) != 1)}"
    click.echo(f"{count}, held-out top-1 {result.top1 or 0:.2%} -> {folder.as_posix()}")
