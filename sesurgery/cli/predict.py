"""`sesurgery predict`: an engine on image files."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import as_json, emit_json, foreign, trust
from sesurgery.diagnostics import SesurgeryError


@click.command("predict")
@click.argument("engine", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE...")
@click.option(
    "--top", type=click.IntRange(min=1), default=3, show_default=True, help="Number of classes to show for each image."
)
@foreign
@as_json
@trust
def command(engine: Path, images: tuple[Path, ...], top: int, foreign: bool, as_json: bool) -> None:
    """Classify images, or all images in a folder, with an engine.

    Files that cannot be read are listed at the end, with exit code 1.
    """
    # Not by way of the pipeline, which brings torch along.
    from sesurgery.serving.predict import predict

    done = predict(engine, images, top, foreign=foreign)
    if as_json:
        emit_json(
            [
                {
                    "image": item.image.as_posix(),
                    "classes": [{"name": guess.name, "probability": guess.probability} for guess in item.guesses],
                }
                for item in done.predictions
            ]
        )
    else:
        width = max((len(item.image.as_posix()) for item in done.predictions), default=0)
        for item in done.predictions:
            guesses = "  ".join(f"{guess.name} {100 * guess.probability:.1f} %" for guess in item.guesses)
            click.echo(f"{item.image.as_posix():<{width}}  {guesses}")
    if done.failures:
        raise SesurgeryError(done.failures)
