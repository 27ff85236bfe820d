"""`sesurgery verify`: engines against the trained model."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import as_json, emit_json, foreign, newest, talking, trust
from sesurgery.diagnostics import CheckFailed


@click.command("verify")
@click.argument("engines", nargs=-1, type=click.Path(path_type=Path), metavar="[ENGINE...]")
@click.option("--drift", is_flag=True, help="Measure the error along the network; try repairs on one that falls short.")
@foreign
@as_json
@trust
def command(engines: tuple[Path, ...], drift: bool, foreign: bool, as_json: bool) -> None:
    """Compare engines (default: the newest) with the trained model on every held-out sample.

    Exits with 4 if one does not meet the spec's parity.
    """
    from sesurgery import pipeline
    from sesurgery.reports.drift import to_text as drift_text
    from sesurgery.reports.parity import to_json, to_text

    chosen = engines or (newest("engine", pipeline.Workspace().newest_engine()),)
    with talking() as talk:
        verified = [pipeline.verify(engine, foreign=foreign, drift=drift, talk=talk) for engine in chosen]
    sections = [item.section for item in verified]
    if as_json:
        emit_json({"engines": [to_json(section) for section in sections]})
    else:
        click.echo(to_text(sections))
        for section in sections:
            click.echo("\n".join(drift_text(section)), nl=section.drift is not None)
    failures = [failure for item in verified for failure in item.failures]
    if failures:
        raise CheckFailed(failures)
