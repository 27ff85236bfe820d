"""`sesurgery study`: compare cells of a study with the plain network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesurgery.cli.console import Lines, as_json, emit_json, spec_of, talking
from sesurgery.cli.signals import Stopped

if TYPE_CHECKING:
    from sesurgery.pipeline.study.estimate import StudyEstimate, TrialEstimate


@click.command("study")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="List the trials with estimated times, without running any.")
@click.option("--table", is_flag=True, help="Only show the results so far.")
@click.option("--retry", is_flag=True, help="Run failed trials again, and a doubtful race.")
@click.option("--ray", metavar="ADDRESS", help="Run the trials on a Ray cluster; `local` starts one on this machine.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Workers on the cluster (default: all that it has room for)."
)
@as_json
def command(
    spec: Path, dry_run: bool, table: bool, retry: bool, ray: str | None, workers: int | None, as_json: bool
) -> None:
    """Run the trials of a spec's `study:`, and show which cells differ from the plain network.

    An interrupted study continues when started again. Several processes share the trials. Results are written to
    studies/NAME/ as study.json, .md and .html.
    """
    from sesurgery import pipeline

    if workers is not None and ray is None:
        raise click.UsageError("--workers is for --ray")
    loaded = spec_of(spec)
    if dry_run:
        _tell(pipeline.estimate(loaded), as_json=as_json)
        return
    from sesurgery.reports.pages.study import to_json, to_text

    workspace = pipeline.Workspace()
    if table:
        studied = pipeline.study_results(loaded, workspace)
    elif ray is not None:
        from sesurgery.pipeline.study.on_ray import ClusterRequest, study_on_ray

        # Ray tells its makers who uses it unless it is told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with talking() as talk:
            request = ClusterRequest(spec, workspace, ray, workers, retry=retry, talk=talk, worker_talk=Lines())
            studied = study_on_ray(request)
    else:
        with talking() as talk:
            studied = pipeline.study(loaded, workspace, spec.as_posix(), talk, retry=retry)
    if studied.signal is not None:
        again = f"interrupted; continue with: sesurgery study {spec.as_posix()}"
        raise Stopped(studied.signal, f"{studied.done} trials done, {again}")
    if as_json:
        emit_json(to_json(studied.answer))
    else:
        click.echo(to_text(studied.answer))
    click.echo(f"study -> {(studied.folder / 'study.html').as_posix()}", err=as_json)


def _tell(found: StudyEstimate, *, as_json: bool) -> None:
    if as_json:
        trials = [
            {
                "where": dict(each.cell.where),
                "plain": each.cell.plain,
                "seed": each.seed,
                "seconds": each.seconds,
                "shared": each.shared,
            }
            for each in found.trials
        ]
        counts = {"cells": found.cells, "plain": found.plain, "count": found.count}
        emit_json({"trials": trials, **counts, "race_seconds": found.race, "seconds": found.seconds})
        return
    for each in found.trials:
        # Of a search all trainings are taken to cost the same.
        told = f": {_seconds(each)}" if each.shared or not found.search else ""
        click.echo(f"{each.cell}, seed {each.seed}{told}")
    if found.race is not None or found.why_race is not None:
        race = f"not known: {found.why_race}" if found.race is None else f"at most {_time(found.race)}"
        click.echo(f"engines and their race: {race}")
    total = "time not known" + (f": {found.why}" if found.why else "")
    if found.seconds is not None:
        total = f"about {_time(found.seconds)} on this machine, one after another"
        total += ", each taken to cost what the plain network costs" if found.search else ""
    if not found.unknown:
        click.echo(f"{found.count} trials, {total}")
        return
    click.echo(f"further cells: {found.unknown}, drawn by what comes of those before, so not known yet")
    networks = "a plain network" if found.plain == 1 else f"at most {found.plain} plain networks"
    click.echo(f"{found.cells} cells and {networks}: at most {found.count} trials, {total}")


def _seconds(trial: TrialEstimate) -> str:
    if trial.shared:
        return "shares a training" + (f", {_time(trial.seconds)}" if trial.seconds else "")
    return f"not known: {trial.why}" if trial.seconds is None else _time(trial.seconds)


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
