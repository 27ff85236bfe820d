"""`sesurgery schema`: the spec's JSON Schema."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import force


@click.command("schema")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file instead of stdout.")
@force
def command(output: Path | None, force: bool) -> None:
    """Print the JSON Schema of a spec, for completion and checks in editors."""
    from sesurgery import pipeline
    from sesurgery.artifacts import to_json, write_text
    from sesurgery.spec.schema import TITLE, json_schema
    from sesurgery.workspace.targets import claim, marked

    text = to_json(json_schema(pipeline.catalogs()))
    if output is None:
        click.echo(text, nl=False)
    else:
        claim(output, ours=marked(f'"title": "{TITLE}"'), force=force)
        write_text(output, text)
        click.echo(f"schema -> {output}", err=True)
