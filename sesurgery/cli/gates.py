"""`sesurgery gates`: statistics of the gates of a run, or of an ONNX file, and what follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesurgery.cli.console import as_json, emit_json, force, newest, talking, trust

if TYPE_CHECKING:
    from sesurgery.pipeline.gates.gates import GateResult

SUFFIXES = (".png", ".svg", ".pdf")


@click.command("gates")
@click.argument("run", required=False, type=click.Path(path_type=Path), metavar="[RUN | NET.onnx]")
@click.option("--classes", type=click.IntRange(min=1), default=4, show_default=True, help="Number of classes.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=50, show_default=True, help="Number of samples of each class."
)
@click.option(
    "--inputs",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.npz",
    help="Samples for an ONNX file: an array for each input and, if known, their `labels`.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Plot the mean gates by class, or with --drift by epoch (.png, .svg or .pdf).",
)
@click.option(
    "--fold",
    is_flag=True,
    help="Also measure how many answers change, and how much time is saved, if nearly constant gates are folded. Of a "
    "file, one half of the samples decides which gates those are, and the other half is measured.",
)
@click.option(
    "--bound",
    type=click.FloatRange(0, min_open=True),
    help="With --fold: how far from a constant a gate may be. Default: the spec's, or 0.01.",
)
@click.option(
    "--price",
    is_flag=True,
    help="With --fold: also predict the time it saves, from what each block costs. Measuring that takes minutes.",
)
@click.option(
    "--drift", is_flag=True, help="Also show how the gates moved in training, at the epochs whose weights were kept."
)
@click.option(
    "--prune",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="SPEC",
    help="Write the run's spec without the blocks whose gates are the same for every sample.",
)
@click.option(
    "--flips",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="With --prune: also without blocks that, folded, are predicted to flip at most this share of answers.",
)
@click.option(
    "--fine-tune",
    is_flag=True,
    help="With --prune: train that spec from the run's weights, compare the two, and verify its first engine.",
)
@force
@as_json
@trust
def command(
    run: Path | None,
    classes: int,
    samples: int,
    inputs: Path | None,
    picture: Path | None,
    fold: bool,
    bound: float | None,
    price: bool,
    drift: bool,
    prune: Path | None,
    flips: float | None,
    fine_tune: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Print statistics of a run's gates (default: the newest run) on held-out samples, by class.

    Shows dead, saturated and constant gates, how much they depend on the class, and advice: for the blocks that were
    inserted, and for gates that the network has of its own. Those, and the gates of an ONNX file, are found by their
    dataflow. An ONNX file needs samples (--inputs), and does not take --price, --drift and --prune. Exits with 4 if the
    engine of --fine-tune falls short.
    """
    if picture is not None and picture.suffix not in SUFFIXES:
        raise click.UsageError(f"--picture writes {', '.join(SUFFIXES)}, not {picture.name!r}")
    _require_fitting(run, inputs, prune=prune is not None, price=price, drift=drift)
    if not fold and (price or bound is not None):
        raise click.UsageError("--bound and --price go with --fold")
    if prune is None and (fine_tune or flips is not None):
        raise click.UsageError("--flips and --fine-tune go with --prune SPEC")
    from sesurgery import pipeline
    from sesurgery.reports.text.gates import to_json, to_text

    if picture is not None:
        from sesurgery.workspace.targets import claim

        claim(picture, ours=lambda _: False, force=force)
    if run is not None and inputs is not None:
        found = pipeline.gates_of_file(run, inputs)
    else:
        folder = run or newest("run", pipeline.Workspace().newest_run())
        found = pipeline.gates(folder, classes=classes, samples=samples)
    if picture is not None and not drift:
        _draw(found, picture)
    told = to_json(found)
    try:
        _say(to_text(found), as_json)
        if drift:
            told["drift"] = _drift(found.source, classes, samples, picture, as_json=as_json)
        if fold:
            told["fold"] = _fold(found, inputs, bound, price=price, as_json=as_json)
        if prune is not None:
            _prune(found, prune, flips, told, fine_tune=fine_tune, force=force, as_json=as_json)
    finally:
        if as_json:
            emit_json(told)


def _require_fitting(run: Path | None, inputs: Path | None, *, prune: bool, price: bool, drift: bool) -> None:
    """Raise UsageError for an ONNX file without its samples or with an option of runs, and for samples of a run."""
    of_file = run is not None and run.suffix == ".onnx"
    if of_file != (inputs is not None):
        raise click.UsageError("an ONNX file needs --inputs FILE.npz" if of_file else "--inputs is for an ONNX file")
    if of_file and prune:
        raise click.UsageError("--prune is for a run: an ONNX file has no spec")
    if of_file and price:
        raise click.UsageError("--price is for a run: an ONNX file does not say what its blocks are")
    if of_file and drift:
        raise click.UsageError("--drift is for a run: an ONNX file was not trained here")


def _say(text: str, as_json: bool) -> None:
    if not as_json:
        click.echo(text)


def _draw(found: GateResult, picture: Path) -> None:
    if not found.blocks:
        click.echo("no picture: no block's gate could be measured", err=True)
        return
    from sesurgery.artifacts import writing
    from sesurgery.reports.text.gates import draw

    with writing(picture) as temporary:
        draw(found, temporary, picture.suffix.removeprefix("."))
    click.echo(f"picture -> {picture.as_posix()}", err=True)


def _drift(run: Path, classes: int, samples: int, picture: Path | None, *, as_json: bool) -> list[dict[str, object]]:
    from sesurgery import pipeline
    from sesurgery.artifacts import writing
    from sesurgery.reports.text import gates_by_epoch as report

    moved = pipeline.gates_by_epoch(run, classes=classes, samples=samples)
    _say(report.to_text(moved), as_json)
    if picture is not None:
        with writing(picture) as temporary:
            report.draw(moved, temporary, picture.suffix.removeprefix("."))
        click.echo(f"picture -> {picture.as_posix()}", err=True)
    return report.to_json(moved)


def _fold(
    found: GateResult, inputs: Path | None, bound: float | None, *, price: bool, as_json: bool
) -> dict[str, object]:
    """Of the run, or of the ONNX file that `inputs` holds samples for."""
    from sesurgery import pipeline
    from sesurgery.reports.text import fold as report
    from sesurgery.reports.text import fold_file as file_report

    if inputs is not None:
        with talking() as talk:
            done = pipeline.fold_file(pipeline.FileFoldRequest(found.source, inputs, bound, talk=talk))
        _say(file_report.to_text(done), as_json)
        return file_report.to_json(done)
    with talking() as talk:
        folded = pipeline.fold(pipeline.FoldRequest(found.source, pipeline.Workspace(), bound, price, talk))
    _say(report.to_text(folded.folding, folded.folder.as_posix()), as_json)
    return report.to_json(folded.folding)


def _prune(
    found: GateResult,
    spec: Path,
    flips: float | None,
    into: dict[str, object],
    *,
    fine_tune: bool,
    force: bool,
    as_json: bool,
) -> None:
    """What was done stands under `prune` also where this ends with an error: JSON is written all the same."""
    from sesurgery import pipeline

    workspace = pipeline.Workspace()
    needless = {} if flips is None else pipeline.needless(found.source, workspace, flips)
    made = pipeline.prune(found, spec, tuple(needless), force=force)
    for key, why in made.left_in:
        click.echo(f"{key} does not pay and stays: {why}", err=True)
    told: dict[str, object] = {"spec": None, "left_out": list(made.left_out), "kept": dict(made.left_in)}
    into["prune"] = told
    if not made.left_out:
        return
    written = spec.as_posix()
    click.echo(f"without {', '.join(made.left_out)} -> {written}", err=True)
    told["spec"] = written
    if not fine_tune:
        source = found.source.as_posix()
        click.echo(f"train it with: sesurgery apply {written} --weights {source} && sesurgery train", err=True)
        return
    from sesurgery.cli.signals import Stopped
    from sesurgery.diagnostics import CheckFailed
    from sesurgery.reports.text import fine_tune as report

    with talking() as talk:
        tuned = pipeline.fine_tune(pipeline.FineTuneRequest(found.source, spec, workspace, talk))
    _say(report.to_text(tuned), as_json)
    told["fine_tuned"] = report.to_json(tuned)
    if tuned.signal is not None:
        new, old = tuned.run.as_posix(), tuned.began_with.as_posix()
        go_on = f"sesurgery train {new} --resume && sesurgery compare {new} {old}"
        then = f"sesurgery build-engine {new} && sesurgery verify"
        raise Stopped(tuned.signal, f"interrupted after {tuned.epochs} epochs; continue with: {go_on} && {then}")
    if tuned.verified is not None and tuned.verified.failures:
        raise CheckFailed(tuned.verified.failures)
