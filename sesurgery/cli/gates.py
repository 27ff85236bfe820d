"""`sesurgery gates`: statistics of a run's gates."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import as_json, emit_json, force, newest, trust

SUFFIXES = (".png", ".svg", ".pdf")


@click.command("gates")
@click.argument("run", required=False, type=click.Path(path_type=Path), metavar="[RUN]")
@click.option("--classes", type=click.IntRange(min=1), default=4, show_default=True, help="Number of classes.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=50, show_default=True, help="Number of samples of each class."
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Plot the mean gates by class (.png, .svg or .pdf).",
)
@force
@as_json
@trust
def command(run: Path | None, classes: int, samples: int, picture: Path | None, force: bool, as_json: bool) -> None:
    """Print statistics of a run's gates (default: the newest run) on held-out samples, by class.

    Shows dead, saturated and constant gates, how much they depend on the class, and advice.
    """
    if picture is not None and picture.suffix not in SUFFIXES:
        raise click.UsageError(f"--picture writes {', '.join(SUFFIXES)}, not {picture.name!r}")
    from sesurgery import pipeline
    from sesurgery.reports.gates import draw, to_json, to_text

    if picture is not None:
        from sesurgery.workspace.targets import claim

        claim(picture, ours=lambda _: False, force=force)
    found = pipeline.gates(run or newest("run", pipeline.Workspace().newest_run()), classes=classes, samples=samples)
    if picture is not None and found.blocks:
        from sesurgery.artifacts import writing

        with writing(picture) as temporary:
            draw(found, temporary, picture.suffix.removeprefix("."))
        click.echo(f"picture -> {picture.as_posix()}", err=True)
    if as_json:
        emit_json(to_json(found))
    else:
        click.echo(to_text(found))
