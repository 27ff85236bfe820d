"""`sesurgery inspect`: what a network is made of, and where blocks could go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sesurgery.cli.console import as_json, emit_json, trust

if TYPE_CHECKING:
    from sesurgery.counting import Convention


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


_ACCOUNT = (
    click.option("--account", is_flag=True, help="Show parameters, MACs and activations module by module."),
    click.option(
        "--depth",
        type=click.IntRange(min=0),
        help="With --account: cut paths to so many names; 0 shows every module.  [default: 1]",
    ),
    click.option(
        "--convention",
        type=click.Choice(["torch", "fvcore"]),
        help="With --account: what counts, as torch or as fvcore counts it.  [default: torch]",
    ),
)


def account_options(command: Any) -> Any:
    """`--account` and what goes with it."""
    for option in reversed(_ACCOUNT):
        command = option(command)
    return command


def account_choices(account: bool, depth: int | None, convention: Convention | None) -> dict[str, Any]:
    """The options as the pipeline takes them; they go with `--account` alone."""
    if not account and (depth is not None or convention is not None):
        raise click.UsageError("--depth and --convention go with --account")
    return {"depth": 1 if depth is None else depth or None, "convention": convention or "torch"}


@click.command("inspect")
@click.argument("model")
@shape
@click.option("--at", "at", multiple=True, metavar="PLACEMENT", help="Only this placement; may be given several times.")
@click.option("-v", "--all", "every", is_flag=True, help="Every site and every rejected candidate, one a line.")
@click.option("--compiled", is_flag=True, help="MODEL is an ONNX file or an engine: show its compiled kernels.")
@account_options
@as_json
@trust
def command(
    model: str,
    shape: tuple[int, int, int] | None,
    at: tuple[str, ...],
    every: bool,
    compiled: bool,
    account: bool,
    depth: int | None,
    convention: Convention | None,
    as_json: bool,
) -> None:
    """Show a network's parts, and for every placement the sites it offers and why other candidates are none.

    MODEL is timm:NAME, torchvision:NAME, huggingface:NAME, python:package.module:factory, an ONNX file or a spec. With
    --account it shows what every part costs instead. With --compiled MODEL is an ONNX file or an engine: NVIDIA's
    compiler lists the kernels that it makes, the activations that they move, and what it fused; an engine of ONNX
    Runtime lists its own kernels. An engine is always shown in this way.
    """
    choices = account_choices(account, depth, convention)
    from sesurgery.workspace import is_engine

    if compiled or is_engine(Path(model)):
        if account or at or shape:
            raise click.UsageError("--compiled, and an engine, go with none of --account, --at and --shape")
        _compiled(Path(model), every, as_json)
        return
    from sesurgery import pipeline

    if account:
        from sesurgery.reports import accounts

        counted = pipeline.account_of_model(model, shape, **choices)
        if as_json:
            emit_json(accounts.to_json(counted))
        else:
            click.echo(accounts.to_text(counted))
        return
    from sesurgery.reports import inspection

    seen = pipeline.inspect(model, shape, at)
    if as_json:
        emit_json(inspection.to_json(seen))
    else:
        click.echo(inspection.to_text(seen, every=every))


def _compiled(path: Path, every: bool, as_json: bool) -> None:
    from sesurgery.pipeline.compiled import inspect_compiled
    from sesurgery.reports import compiled

    report = inspect_compiled(path)
    if as_json:
        emit_json(compiled.to_json(report))
    else:
        click.echo(compiled.to_text(report, every=every))
