"""`sesurgery build-engine`: an engine of a run or of an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesurgery.cli.console import newest, talking

if TYPE_CHECKING:
    from sesurgery.spec.model import Engine


@click.command("build-engine")
@click.argument("target", required=False, type=click.Path(path_type=Path), metavar="[RUN|ONNX]")
@click.option("--fp32", "precision", flag_value="fp32", help="Single precision.")
@click.option("--fp16", "precision", flag_value="fp16", help="Half precision; the gates stay in single.")
@click.option("--backend", help="Who builds it (`sesurgery list backends`). Default: onnxruntime.")
@click.option("--batch", help="Batch sizes MIN,BEST,MAX the engine takes. Default: 1,1,64.")
def command(target: Path | None, precision: str | None, backend: str | None, batch: str | None) -> None:
    """Build an engine of a run (default: the newest) or an ONNX file into engines/.

    Without --fp32, --fp16, --backend and --batch: every engine that the run's spec names.
    """
    from sesurgery import pipeline
    from sesurgery.backends import BACKENDS

    workspace = pipeline.Workspace()
    given = target or newest("run", workspace.newest_run())
    engines: tuple[Engine, ...] = ()
    if precision or backend or batch:
        BACKENDS.load(backend or "onnxruntime")
        engines = (_engine(precision or "fp32", backend or "onnxruntime", batch),)
    with talking() as talk:
        built = pipeline.build_engines(given, workspace, engines, talk=talk)
    for item in built:
        for note in item.report.notes:
            click.echo(f"note: {note}", err=True)
        counts = ", ".join(f"{count} in {kind}" for kind, count in item.report.convolutions.items())
        click.echo(f"convolutions: {counts}; built in {item.report.seconds:.1f} s -> {item.path.as_posix()}")


def _engine(precision: str, backend: str, batch: str | None) -> Engine:
    from sesurgery.spec.model import Batch, Engine

    sizes = Batch()
    if batch:
        try:
            low, best, high = (int(part) for part in batch.split(","))
            sizes = Batch(min=low, opt=best, max=high)
        except ValueError as error:
            raise click.BadParameter(f"expected MIN,BEST,MAX in ascending order, found {batch!r}") from error
    return Engine(backend=backend, precision=precision, batch=sizes)  # type: ignore[arg-type]
