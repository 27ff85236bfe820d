"""`sesurgery verify`: engines against the trained model, or against an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesurgery.cli.console import as_json, emit_json, foreign, newest, talking, trust
from sesurgery.diagnostics import CheckFailed, Diagnostic, SesurgeryError

if TYPE_CHECKING:
    from sesurgery.pipeline.verify.of_file import FileVerifyResult
    from sesurgery.reports.model import EngineSection
    from sesurgery.spec.parity import Tolerance
    from sesurgery.talk import Talk


def _tolerance(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> Tolerance | None:
    """`max_abs=0.1` as a tolerance that asks for that alone."""
    from pydantic import ValidationError

    from sesurgery.artifacts import mistake
    from sesurgery.spec.parity import Tolerance

    if not given:
        return None
    try:
        return Tolerance.model_validate(dict(text.split("=", 1) for text in given), strict=False)
    except ValidationError as error:
        raise click.BadParameter(f"{mistake(error)}; write one as max_abs=0.1") from error
    except ValueError as error:
        raise click.BadParameter(f"expected KEY=VALUE, as in max_abs=0.1; found {' '.join(given)!r}") from error


@click.command("verify")
@click.argument("engines", nargs=-1, type=click.Path(path_type=Path), metavar="[ENGINE...]")
@click.option("--drift", is_flag=True, help="Measure the error along the network; try repairs on one that falls short.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE.onnx",
    help="Compare with this file. Default without a run: the file that the engine was built from.",
)
@click.option(
    "--samples", type=click.Path(path_type=Path), metavar="FILE.npz", help="Inputs to compare on, instead of noise."
)
@click.option(
    "--tolerance",
    multiple=True,
    callback=_tolerance,
    metavar="KEY=VALUE",
    help="A bound, e.g. max_abs=0.1. Default: those of a spec for that precision. May be repeated.",
)
@foreign
@as_json
@trust
def command(
    engines: tuple[Path, ...],
    drift: bool,
    against: Path | None,
    samples: Path | None,
    tolerance: Tolerance | None,
    foreign: bool,
    as_json: bool,
) -> None:
    """Compare engines (default: the newest) with the trained model on every held-out sample.

    Engines that came from no run are compared with an ONNX file, output by output. With --against, --samples or
    --tolerance all are. ENGINE may be an ONNX file too. Exits with 4 if one falls short, and with 1 if one is stale.
    """
    from sesurgery import pipeline
    from sesurgery.backends import runs_here

    workspace = pipeline.Workspace()
    chosen = engines or (newest("engine", workspace.newest_engine(runs_here)),)
    with talking() as talk:
        built = [pipeline.as_engine(engine, workspace, talk=talk) for engine in chosen]
        by_file = {engine: bool(against or samples or tolerance) or not pipeline.has_run(engine) for engine in built}
        if drift and any(by_file.values()):
            raise click.UsageError("--drift follows an engine back to its trained model: name engines of a run alone")
        of_runs = [_verify(engine, foreign=foreign, drift=drift, talk=talk) for engine in built if not by_file[engine]]
        of_files = [
            pipeline.verify_file(
                pipeline.FileVerifyRequest(engine, workspace, against, samples, tolerance, foreign, talk)
            )
            for engine in built
            if by_file[engine]
        ]
    _show([item.section for item in of_runs], of_files, as_json=as_json)
    stale = [error for item in of_runs for error in item.stale]
    failures = [failure for item in of_runs for failure in item.failures]
    failures += [failure for item in of_files for failure in item.failures]
    if stale:
        raise SesurgeryError([*stale, *failures])
    if failures:
        raise CheckFailed(failures)


@dataclass(frozen=True)
class _OfRun:
    """An engine of a run as it is shown: why it is stale, or what it falls short of."""

    section: EngineSection
    stale: tuple[Diagnostic, ...] = ()
    failures: tuple[Diagnostic, ...] = ()


def _verify(engine: Path, *, foreign: bool, drift: bool, talk: Talk) -> _OfRun:
    """Compare one engine of a run; one that is stale does not keep the others from being compared."""
    from sesurgery import pipeline
    from sesurgery.workspace.freshness import StaleEngine

    try:
        verified = pipeline.verify(engine, foreign=foreign, drift=drift, talk=talk)
    except StaleEngine as error:
        return _OfRun(pipeline.stale_section(engine), stale=tuple(error.diagnostics))
    return _OfRun(verified.section, failures=verified.failures)


def _show(sections: Sequence[EngineSection], of_files: Sequence[FileVerifyResult], *, as_json: bool) -> None:
    from sesurgery.reports.text import drift, file_parity, parity

    if as_json:
        by_sections = [parity.to_json(section) for section in sections]
        emit_json({"engines": by_sections + [file_parity.to_json(item.parity) for item in of_files]})
        return
    if sections:
        click.echo(parity.to_text(sections))
    for section in sections:
        click.echo("\n".join(drift.to_text(section)), nl=section.drift is not None)
    if of_files:
        click.echo(file_parity.to_text([(item.parity, item.tolerance) for item in of_files]))
