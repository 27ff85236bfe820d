"""`sesurgery init`: a first spec for a network."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.inspect_ import shape


@click.command("init")
@click.argument("model")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write (default: specs/NAME.yaml); - prints to stdout.",
)
@shape
@click.option("--force", is_flag=True, help="Replace an existing file.")
def command(model: str, output: Path | None, shape: tuple[int, ...] | None, force: bool) -> None:
    """Write a commented, working spec with a placement that suits the network.

    MODEL is timm:NAME, torchvision:NAME, huggingface:NAME, ultralytics:NAME, python:package.module:factory or an ONNX
    file; zoo:NAME copies the spec of a published network, demo:NAME one of the demo's.
    """
    from sesurgery import pipeline

    made = pipeline.init(model, output, shape=shape, force=force)
    if made.path is None:
        click.echo(made.text, nl=False)
        return
    click.echo(f"{made.summary()} -> {made.path.as_posix()}")
    click.echo(f"look at it with: sesurgery plan {made.path.as_posix()}", err=True)
