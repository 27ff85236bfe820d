"""`sesurgery check`: check specs without building anything."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import SpecFile
from sesurgery.diagnostics import Diagnostic, SesurgeryError


@click.command("check")
@click.argument("specs", nargs=-1, required=True, type=SpecFile(), metavar="SPEC...")
def command(specs: tuple[Path, ...]) -> None:
    """Check specs for mistakes in YAML, keys, types and names. No network is built."""
    from sesurgery import pipeline

    mistakes: list[Diagnostic] = []
    for path in specs:
        try:
            spec = pipeline.load_spec(path)
        except SesurgeryError as error:
            mistakes.extend(error.diagnostics)
        else:
            click.echo(f"{path}: {spec.name}, {len(spec.surgery)} rule{'s' * (len(spec.surgery) > 1)}, good")
    if mistakes:
        raise SesurgeryError(mistakes)
