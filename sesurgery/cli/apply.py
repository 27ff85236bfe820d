"""`sesurgery apply`: surgery."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import SpecFile, force, spec_of, talking


@click.command("apply")
@click.argument("spec", type=SpecFile())
@click.option(
    "--onnx", "file", type=click.Path(path_type=Path), help="Change this ONNX file instead of the spec's network."
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="The changed ONNX file.  [default: export/NAME.onnx]"
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Start from the values of this run, by key. In an ONNX file only the blocks take them.",
)
@force
def command(spec: Path, file: Path | None, out: Path | None, weights: Path | None, force: bool) -> None:
    """Insert the blocks, check that each one runs, and write runs/NAME/ with spec, plan and weights.

    With an ONNX file (`--onnx`, or `source: onnx` in the spec) the result is an ONNX file.
    """
    from sesurgery import pipeline

    loaded, workspace = spec_of(spec), pipeline.Workspace()
    if file is None and loaded.model.source != "onnx":
        if out:
            raise click.UsageError("-o goes with --onnx, or with a spec of 'source: onnx'")
        applied = pipeline.apply(loaded, workspace, spec.as_posix(), weights)
        planned, written = applied.planned, applied.folder
        if weights is not None:
            click.echo(f"weights of {weights.as_posix()}: {applied.taken}", err=True)
    else:
        with talking() as talk:
            request = pipeline.FileRequest(loaded, workspace, spec.as_posix(), file, out, weights, force, talk)
            changed = pipeline.apply_onnx(request)
        planned, written = changed.planned, changed.path
        for note in changed.notes:
            click.echo(f"note: {note}", err=True)
    for warning in planned.plan.warnings:
        click.echo(f"warning: {warning}", err=True)
    for note in planned.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{planned.summary()} -> {written.as_posix()}")
