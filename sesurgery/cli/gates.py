"""`sesurgery gates`: statistics of the gates of a run, or of an ONNX file."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import as_json, emit_json, force, newest, trust

SUFFIXES = (".png", ".svg", ".pdf")


@click.command("gates")
@click.argument("run", required=False, type=click.Path(path_type=Path), metavar="[RUN | NET.onnx]")
@click.option("--classes", type=click.IntRange(min=1), default=4, show_default=True, help="Number of classes.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=50, show_default=True, help="Number of samples of each class."
)
@click.option(
    "--inputs",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.npz",
    help="Samples for an ONNX file: an array for each input and, if known, their `labels`.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Plot the mean gates by class (.png, .svg or .pdf).",
)
@click.option(
    "--prune",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="SPEC",
    help="Write the run's spec without the blocks whose gates are the same for every sample.",
)
@force
@as_json
@trust
def command(
    run: Path | None,
    classes: int,
    samples: int,
    inputs: Path | None,
    picture: Path | None,
    prune: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Print statistics of a run's gates (default: the newest run) on held-out samples, by class.

    Shows dead, saturated and constant gates, how much they depend on the class, and advice. Of an ONNX file the gates
    are found by their dataflow, and --inputs holds the samples.
    """
    if picture is not None and picture.suffix not in SUFFIXES:
        raise click.UsageError(f"--picture writes {', '.join(SUFFIXES)}, not {picture.name!r}")
    of_file = run is not None and run.suffix == ".onnx"
    if of_file != (inputs is not None):
        raise click.UsageError("an ONNX file needs --inputs FILE.npz" if of_file else "--inputs is for an ONNX file")
    if of_file and prune is not None:
        raise click.UsageError("--prune is for a run: an ONNX file has no spec")
    from sesurgery import pipeline
    from sesurgery.reports.gates import draw, to_json, to_text

    if picture is not None:
        from sesurgery.workspace.targets import claim

        claim(picture, ours=lambda _: False, force=force)
    if run is not None and inputs is not None:
        found = pipeline.gates_of_file(run, inputs)
    else:
        folder = run or newest("run", pipeline.Workspace().newest_run())
        found = pipeline.gates(folder, classes=classes, samples=samples)
    if picture is not None and found.blocks:
        from sesurgery.artifacts import writing

        with writing(picture) as temporary:
            draw(found, temporary, picture.suffix.removeprefix("."))
        click.echo(f"picture -> {picture.as_posix()}", err=True)
    elif picture is not None:
        click.echo("no picture: no block's gate could be measured", err=True)
    if as_json:
        emit_json(to_json(found))
    else:
        click.echo(to_text(found))
    if prune is not None:
        made = pipeline.prune(found, prune, force=force)
        for key, why in made.kept:
            click.echo(f"{key} does nothing and stays: {why}", err=True)
        if made.left_out:
            written = prune.as_posix()
            click.echo(f"without {', '.join(made.left_out)} -> {written}", err=True)
            click.echo(f"train it with: sesurgery apply {written} && sesurgery train", err=True)
