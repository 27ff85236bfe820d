"""`sesurgery schema`: the spec's JSON Schema."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("schema")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it to a file instead of stdout.")
def command(output: Path | None) -> None:
    """Print the JSON Schema of a spec, for editors that complete and check."""
    from sesurgery import pipeline
    from sesurgery.artifacts import to_json, write_text
    from sesurgery.spec.schema import json_schema

    text = to_json(json_schema(pipeline.catalogs()))
    if output is None:
        click.echo(text, nl=False)
    else:
        write_text(output, text)
        click.echo(f"schema -> {output}", err=True)
