"""`sesurgery inspect`: what a network is made of, and where blocks could go."""

from __future__ import annotations

import click

from sesurgery.cli.console import as_json, emit_json


class _Shape(click.ParamType):  # type: ignore[type-arg]
    """Three sizes: `3,224,224`, or `3x224x224` as the program writes them."""

    name = "C,H,W"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, int]:
        sizes = value.replace("x", ",").split(",")
        if len(sizes) != 3 or not all(size.strip().isdecimal() and int(size) for size in sizes):
            self.fail(f"{value!r} is not channels, height and width: write it as in 3,224,224", param, ctx)
        channels, height, width = (int(size) for size in sizes)
        return channels, height, width


shape = click.option(
    "--shape", type=_Shape(), help="The input's channels, height and width (default: what the network was made for)."
)


@click.command("inspect")
@click.argument("model")
@shape
@click.option("--at", "at", multiple=True, metavar="PLACEMENT", help="Only this placement; may be given several times.")
@click.option("-v", "--all", "every", is_flag=True, help="Every site and every rejected candidate, one a line.")
@as_json
def command(model: str, shape: tuple[int, int, int] | None, at: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Show a network's parts, and for every placement the sites it offers and why other candidates are none.

    MODEL is timm:NAME, torchvision:NAME, python:package.module:factory, or a spec.
    """
    from sesurgery import pipeline
    from sesurgery.reports import inspection

    seen = pipeline.inspect(model, shape, at)
    if as_json:
        emit_json(inspection.to_json(seen))
    else:
        click.echo(inspection.to_text(seen, every=every))
