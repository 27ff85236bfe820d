"""`sesurgery package`: an engine as a model of an inference server."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import foreign, trust


@click.command("package")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option(
    "--triton",
    "repository",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="A model repository of Triton Inference Server.",
)
@click.option("--name", help="The model's name there. Default: the run's.")
@foreign
@trust
def command(engine: Path, repository: Path, name: str | None, foreign: bool) -> None:
    """Put an engine into a model repository: its configuration, its labels, and the next version of it."""
    # Not by way of the pipeline, which brings torch along.
    from sesurgery.serving.package import package

    done = package(engine, repository, name, foreign=foreign)
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"version {done.version} -> {', '.join(path.as_posix() for path in done.files)}")
