"""`sesurgery inspect`: what a network is made of, and where blocks could go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sesurgery.cli.console import as_json, emit_json, trust

if TYPE_CHECKING:
    from sesurgery.counting import Convention


class _Shape(click.ParamType):  # type: ignore[type-arg]
    """Three sizes or four: `3,224,224`, or `3x224x224` as the program writes them."""

    name = "C,H,W"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        sizes = value.replace("x", ",").split(",")
        if len(sizes) not in (3, 4) or not all(size.strip().isdecimal() and int(size) for size in sizes):
            self.fail(f"{value!r} is not channels, height and width: write it as in 3,224,224", param, ctx)
        return tuple(map(int, sizes))


shape = click.option(
    "--shape", type=_Shape(), help="Channels, height and width of the input (default: the network's own)."
)


_ACCOUNT = (
    click.option("--account", is_flag=True, help="Show parameters, MACs and activations of each module."),
    click.option(
        "--depth",
        type=click.IntRange(min=0),
        help="With --account: depth of the module tree; 0 shows every module.  [default: 1]",
    ),
    click.option(
        "--convention",
        type=click.Choice(["torch", "fvcore"]),
        help="With --account: count as torch or as fvcore does.  [default: torch]",
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
@click.option("--at", "at", multiple=True, metavar="PLACEMENT", help="Only this placement. May be repeated.")
@click.option("-v", "--all", "every", is_flag=True, help="List every site and every rejected candidate.")
@click.option("--compiled", is_flag=True, help="Show the compiled kernels; MODEL is an ONNX file or an engine.")
@account_options
@as_json
@trust
def command(
    model: str,
    shape: tuple[int, ...] | None,
    at: tuple[str, ...],
    every: bool,
    compiled: bool,
    account: bool,
    depth: int | None,
    convention: Convention | None,
    as_json: bool,
) -> None:
    """Show a network's structure, and the sites and rejected candidates of every placement.

    MODEL is timm:NAME, torchvision:NAME, huggingface:NAME, ultralytics:NAME, python:package.module:factory, an ONNX
    file or a spec. With --account it shows the cost of each module instead. With --compiled, MODEL is an ONNX file or
    an engine: its kernels are listed with their memory traffic and fusions, as compiled by TensorRT-RTX, or as stored
    in an engine of ONNX Runtime. Engines are always shown this way.
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
        from sesurgery.reports.text import accounts

        counted = pipeline.account_of_model(model, shape, **choices)
        if as_json:
            emit_json(accounts.to_json(counted))
        else:
            click.echo(accounts.to_text(counted))
        return
    from sesurgery.reports.text import inspection

    seen = pipeline.inspect(model, shape, at)
    if as_json:
        emit_json(inspection.to_json(seen))
    else:
        click.echo(inspection.to_text(seen, every=every))


def _compiled(path: Path, every: bool, as_json: bool) -> None:
    from sesurgery.pipeline.compiled import inspect_compiled
    from sesurgery.reports.text import compiled

    report = inspect_compiled(path)
    if as_json:
        emit_json(compiled.to_json(report))
    else:
        click.echo(compiled.to_text(report, every=every))
