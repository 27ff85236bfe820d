"""`sesurgery data`: data sets on this machine."""

from __future__ import annotations

import contextlib
import sys

import click


@click.group("data")
def command() -> None:
    """Data sets: `fetch` downloads one. `sesurgery list datasets` shows their names."""


@command.command("fetch")
@click.argument("name")
@click.option("--root", default="data", show_default=True, help="Folder for data sets (`root:` in a spec).")
def fetch(name: str, root: str) -> None:
    """Download a data set and verify its checksum."""
    from sesurgery import pipeline

    # torchvision prints progress to stdout, which is for data.
    with contextlib.redirect_stdout(sys.stderr):
        done = pipeline.fetch(name, root)
    click.echo(f"{name}: {done.train} samples to train on, {done.held_out} held out -> {done.folder.as_posix()}/")
