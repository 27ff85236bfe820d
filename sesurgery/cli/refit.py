"""`sesurgery refit`: weights into an engine that was built to take them."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import force, foreign, talking, trust


@click.command("refit")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option(
    "--onnx",
    type=click.Path(path_type=Path),
    metavar="NET.onnx",
    help="File with the weights, of the same network. Default: the file the engine was built from.",
)
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), required=True, help="The engine to write.")
@force
@foreign
@trust
def command(engine: Path, onnx: Path | None, target: Path, force: bool, foreign: bool) -> None:
    """Put weights into a stripped or refittable engine of tensorrt or tensorrt-rtx. Needs a GPU."""
    from sesurgery import pipeline

    with talking() as talk:
        request = pipeline.RefitRequest(engine, target, pipeline.Workspace(), onnx, talk, foreign, force)
        done = pipeline.refit(request)
    size = target.stat().st_size / 1e6
    which = "new weights" if done.changed else "its own weights"
    click.echo(f"{which}, from {done.source.as_posix()}; {size:.1f} MB -> {target.as_posix()}")
