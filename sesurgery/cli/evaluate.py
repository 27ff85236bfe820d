"""`sesurgery evaluate`: top-1 of runs."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import as_json, emit_json, newest, trust


@click.command("evaluate")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN...]")
@as_json
@trust
def command(runs: tuple[Path, ...], as_json: bool) -> None:
    """Top-1 and loss on the held-out samples, of each run (default: the newest)."""
    from sesurgery import pipeline

    found = {}
    for folder in runs or (newest("run", pipeline.Workspace().newest_run()),):
        result = pipeline.evaluate(folder)
        found[folder.as_posix()] = {"top1": result.top1, "samples": result.samples, "loss": result.loss}
        if not as_json:
            right = f"{result.correct} of {result.samples}"
            click.echo(f"{folder.as_posix()}: top-1 {result.top1:.2%} ({right}), loss {result.loss:.4f}")
    if as_json:
        emit_json(found)
