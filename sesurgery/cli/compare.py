"""`sesurgery compare`: one run against another, or the runs of one recipe against those of another."""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery.cli.console import as_json, emit_json, force, trust
from sesurgery.cli.gates import SUFFIXES


class _Recipes(click.Command):
    """A command whose option `--against` takes all runs that follow it, as shells write them for a pattern."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Name the option again before each of them, which is how click reads several values."""
        named: list[str] = []
        following = False
        for arg in args:
            if following and not arg.startswith("-") and named[-1] != "--against":
                named.append("--against")
            following = arg == "--against" or (following and not arg.startswith("-"))
            named.append(arg)
        return super().parse_args(ctx, named)


@click.command("compare", cls=_Recipes)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--against",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RUN...",
    help="The runs of the other recipe: they are paired by the seed of their training.",
)
@click.option(
    "--accuracy",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Compare the epochs needed to reach this held-out top-1 (default: the highest that both reached).",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw both learning curves (.png, .svg or .pdf).",
)
@force
@as_json
@trust
def command(
    runs: tuple[Path, ...],
    against: tuple[Path, ...],
    accuracy: float | None,
    picture: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Test whether one run is better or worse than another on the same held-out samples.

    `compare FIRST SECOND` judges these two trainings. `compare FIRST... --against SECOND...` judges two recipes, each
    trained from several seeds.
    """
    if picture is not None and picture.suffix not in SUFFIXES:
        raise click.UsageError(f"--picture writes {', '.join(SUFFIXES)}, not {picture.name!r}")
    if not against and len(runs) != 2:
        raise click.UsageError(f"give two runs, not {len(runs)}, or the second recipe's by --against")
    from sesurgery import pipeline
    from sesurgery.reports.text import comparison as report
    from sesurgery.reports.wording import fields

    if picture is not None:
        from sesurgery.workspace.targets import claim

        claim(picture, ours=lambda _: False, force=force)
    first, second = (runs, against) if against else (runs[:1], runs[1:])
    names = [folder.as_posix() for folder in first], [folder.as_posix() for folder in second]
    if against:
        over_seeds = pipeline.compare_seeds(first, second, accuracy)
        told = {"first": names[0], "second": names[1], **fields(over_seeds)}
        text = report.seeds_to_text(over_seeds)
    else:
        found = pipeline.compare(first[0], second[0], accuracy)
        told = {"first": names[0][0], "second": names[1][0], **fields(found)}
        text = report.to_text(names[0][0], names[1][0], found)
    if picture is not None:
        from sesurgery.artifacts import writing
        from sesurgery.reports.plots.evaluation import convergence

        curves = [(folder.as_posix(), pipeline.learning_curve(folder)) for folder in first + second]
        with writing(picture) as temporary:
            convergence(curves, temporary, picture.suffix.removeprefix("."))
        click.echo(f"picture -> {picture.as_posix()}", err=True)
    if as_json:
        emit_json(told)
    else:
        click.echo(text)
