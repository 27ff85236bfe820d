"""Limits on measurements for CI: `--fail-if`, with the results as JUnit XML and in the job's summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from sesurgery.diagnostics import CheckFailed, Diagnostic

if TYPE_CHECKING:
    from sesurgery.reports.junit import Check
    from sesurgery.verification.latency import LatencyReport
    from sesurgery.verification.limits import Limit

Command = TypeVar("Command", bound=Callable[..., object])


def _limits(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[Limit, ...]:
    """`tax > 5 %` as a limit."""
    from sesurgery.verification.limits import parse

    try:
        return tuple(parse(text) for text in given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def gating(command: Command) -> Command:
    """The options `--fail-if`, `--junit` and `--github-summary`."""
    limits = click.option(
        "--fail-if",
        "limits",
        multiple=True,
        callback=_limits,
        metavar="LIMIT",
        help="Exit with 4 if this is true, e.g. 'tax > 5 %' or 'median > 2 ms'. May be repeated.",
    )
    junit = click.option(
        "--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write the results of --fail-if as JUnit XML."
    )
    summary = click.option(
        "--github-summary",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="GITHUB_STEP_SUMMARY",
        help="Append the report in GitHub's Markdown to a file. Default: $GITHUB_STEP_SUMMARY.",
    )
    return limits(junit(summary(command)))


def claim_junit(suite: str, junit: Path | None, limits: Sequence[Limit], *, force: bool) -> None:
    """Raise UsageError for --junit without a limit, and SE405 for a file not written by this program."""
    from sesurgery.workspace.targets import claim, marked

    if junit is None:
        return
    if not limits:
        raise click.UsageError("--junit writes what --fail-if finds: give at least one limit")
    claim(junit, ours=marked(f'<testsuite name="{suite}"'), force=force)


def checks_of(of: str, report: LatencyReport | None, limits: Sequence[Limit]) -> list[Check]:
    """One check per limit for a measured race; without a race every limit counts as broken."""
    from sesurgery.reports.junit import Check

    missing = "nothing was timed: run `sesurgery bench` first"
    return [Check(str(limit), of, limit.broken_by(report) if report else missing) for limit in limits]


def judge(suite: str, checks: Sequence[Check], junit: Path | None, summary: tuple[Path | None, str]) -> None:
    """Write what was found, and append a text to a job's summary; raises CheckFailed with SE702 for broken limits."""
    from sesurgery.artifacts import write_text
    from sesurgery.reports.junit import to_junit

    if junit is not None:
        write_text(junit, to_junit(suite, checks))
        click.echo(f"limits -> {junit.as_posix()}", err=True)
    path, text = summary
    if path is not None:
        # Other steps of the job have written to it.
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)
        click.echo(f"summary -> {path.as_posix()}", err=True)
    failures = [
        Diagnostic("SE702", f"{check.of}: --fail-if {check.name!r}: {check.failure}")
        for check in checks
        if check.failure
    ]
    if failures:
        raise CheckFailed(failures)
