"""`sesurgery evaluate`: how good runs are."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sesurgery.cli.console import as_json, emit_json, force, newest, trust
from sesurgery.cli.gates import SUFFIXES


@click.command("evaluate")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN...]")
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the confusion matrix of one run (.png, .svg or .pdf).",
)
@click.option("--watch", is_flag=True, help="Evaluate each checkpoint of a run in training as it appears.")
@force
@as_json
@trust
def command(runs: tuple[Path, ...], picture: Path | None, watch: bool, force: bool, as_json: bool) -> None:
    """Print top-1, top-3, top-5, loss and calibration of runs on held-out samples; with --json also each class.

    Default: the newest run.
    """
    if (picture or watch) and len(runs) > 1:
        raise click.UsageError(f"--{'picture' if picture else 'watch'} takes one run")
    if picture is not None and picture.suffix not in SUFFIXES:
        raise click.UsageError(f"--picture writes {', '.join(SUFFIXES)}, not {picture.name!r}")
    from sesurgery import pipeline
    from sesurgery.reports.text.scores import to_text
    from sesurgery.reports.wording import fields

    if picture is not None:
        from sesurgery.workspace.targets import claim

        claim(picture, ours=lambda _: False, force=force)
    folders = runs or (newest("run", pipeline.Workspace().newest_run()),)
    if watch:
        for position, scores in pipeline.watch(folders[0]):
            line = f"{position}  top-1 {scores.top1:.2%}  loss {scores.loss:.4f}"
            click.echo(json.dumps({"position": position, **told(fields(scores))}) if as_json else line)
        return
    found = {folder.as_posix(): pipeline.evaluate(folder) for folder in folders}
    if picture is not None:
        from sesurgery.artifacts import writing
        from sesurgery.reports.plots.evaluation import confusion

        with writing(picture) as temporary:
            confusion(next(iter(found.values())), temporary, picture.suffix.removeprefix("."))
        click.echo(f"picture -> {picture.as_posix()}", err=True)
    if as_json:
        emit_json({"runs": [{"run": run, **told(fields(scores))} for run, scores in found.items()]})
    else:
        click.echo(to_text(found))


def told(scores: dict[str, object]) -> dict[str, object]:
    """Without the confusion, which has a million cells for a thousand classes."""
    return {key: value for key, value in scores.items() if key != "confusion"}
