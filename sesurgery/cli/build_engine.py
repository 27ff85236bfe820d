"""`sesurgery build-engine`: an engine of a run or of an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesurgery.cli.console import newest, talking, trust
from sesurgery.tables import aligned

if TYPE_CHECKING:
    from sesurgery.pipeline.build_engine.building import Attempt
    from sesurgery.spec.engines import Engine


@click.command("build-engine")
@click.argument("target", required=False, type=click.Path(path_type=Path), metavar="[RUN|ONNX]")
@click.option("--fp32", "precision", flag_value="fp32", help="Single precision.")
@click.option("--fp16", "precision", flag_value="fp16", help="Half precision; gates stay fp32.")
@click.option("--bf16", "precision", flag_value="bf16", help="bfloat16; gates stay fp32.")
@click.option(
    "--int8", "precision", flag_value="int8", help="8-bit integers, calibrated on training data; gates stay fp32."
)
@click.option(
    "--backend", help="A backend of `sesurgery list backends`, or auto for the fastest. Default: onnxruntime."
)
@click.option("--batch", help="Smallest, optimal and largest batch: MIN,BEST,MAX. Default: 1,1,64.")
@click.option("--shape", "shapes", multiple=True, help="A shape profile, e.g. input=1,8,32x3x224x224. May be repeated.")
@click.option("-O", "options", multiple=True, metavar="KEY=VALUE", help="An option of the backend. May be repeated.")
@click.option(
    "--calibration",
    multiple=True,
    metavar="FILE|KEY=VALUE",
    help="Calibrate on a file (.npy, .npz) instead of training data; or set samples=N, method=NAME, weights=7|8.",
)
@click.option("--keep-fp32", "keep", multiple=True, metavar="GLOB", help="Modules that stay fp32, as layer1.0.se.")
@click.option(
    "--io", type=click.Choice(["keep", "convert"]), help="Keep inputs and outputs in fp32, or convert them too."
)
@click.option("--autocast", is_flag=True, help="Convert to fp16 or bf16 with AutoCast of nvidia-modelopt.")
@click.option("--name", help="Add this to the file name.")
@click.option("--again", is_flag=True, help="Build even if the engine is up to date.")
@trust
def command(
    target: Path | None,
    precision: str | None,
    backend: str | None,
    batch: str | None,
    shapes: tuple[str, ...],
    options: tuple[str, ...],
    calibration: tuple[str, ...],
    keep: tuple[str, ...],
    io: str | None,
    autocast: bool,
    name: str | None,
    again: bool,
) -> None:
    """Build an engine of a run (default: the newest) or of an ONNX file, in engines/.

    Without options, every engine in the run's spec is built.
    """
    from sesurgery import pipeline

    workspace = pipeline.Workspace()
    given = target or newest("run", workspace.newest_run())
    engines: tuple[Engine, ...] = ()
    if precision or backend or batch or shapes or options or calibration or keep or io or autocast or name:
        chosen = {"backend": backend or "onnxruntime", **dict(_option(option) for option in options)}
        kind = {"backend": chosen, "precision": precision or "fp32", "name": name, "io": io or "keep"}
        kind |= {"converter": "autocast" if autocast else "sesurgery", "calibration": _calibration(calibration)}
        engines = (pipeline.engine({**kind, "keep_fp32": list(keep), "batch": _batch(batch), "shapes": list(shapes)}),)
    with talking() as talk:
        built = pipeline.build_engines(pipeline.EnginesRequest(given, workspace, engines, again=again, talk=talk))
    for item in built:
        if item.tried:
            click.echo(_table(item.tried))
        if item.why is None:
            click.echo(f"up to date -> {item.path.as_posix()}")
            continue
        for note in item.report.notes:
            click.echo(f"note: {note}", err=True)
        counts = ", ".join(f"{count} in {kind}" for kind, count in item.report.convolutions.items())
        click.echo(f"convolutions: {counts}; built in {item.report.seconds:.1f} s -> {item.path.as_posix()}")


def _table(tried: tuple[Attempt, ...]) -> str:
    """What `auto` found: each backend with its median, its largest error, and why it was not kept."""
    rows = [("backend", "median ms", "max error", "")]
    for each in tried:
        median = "" if each.median_ms is None else f"{each.median_ms:.4f}"
        error = "" if each.max_abs is None else f"{each.max_abs:.2g}"
        rows.append((each.backend, median, error, "kept" if each.left is None else each.left))
    return "\n".join(aligned(rows, left=(0, 3)))


def _batch(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    try:
        low, best, high = (int(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"expected MIN,BEST,MAX, found {text!r}") from error
    if not 1 <= low <= best <= high:
        raise click.BadParameter(f"expected MIN,BEST,MAX in ascending order, found {text!r}")
    return {"min": low, "opt": best, "max": high}


def _calibration(given: tuple[str, ...]) -> dict[str, object]:
    """`samples.npz`, `samples=64` and `method=entropy` -> what stands under `calibration:` in a spec."""
    return dict(_option(text) if "=" in text else ("file", text) for text in given)


def _option(text: str) -> tuple[str, object]:
    """`level=4` -> ("level", 4): values are read as JSON, and as text where they are none."""
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"expected KEY=VALUE, found {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
