"""`sesurgery export`: a run as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import newest, trust


@click.command("export")
@click.argument("run", required=False, type=click.Path(path_type=Path), metavar="[RUN]")
@click.option("--plain", is_flag=True, help="Export the network without its blocks, as a baseline.")
@trust
def command(run: Path | None, plain: bool) -> None:
    """Export a run (default: the newest) to export/NAME.onnx, and compare the file's outputs with the model's."""
    from sesurgery import pipeline

    workspace = pipeline.Workspace()
    folder = run or newest("run", workspace.newest_run())
    made = pipeline.export(folder, workspace, plain=plain)
    click.echo(f"{made.nodes} nodes, largest difference from the model {made.worst:.2g} -> {made.path.as_posix()}")
