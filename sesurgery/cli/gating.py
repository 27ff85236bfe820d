"""Limits on measurements for CI: `--fail-if`, with the results as JUnit XML and in the job's summary."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesurgery.cli.console import force as force_option
from sesurgery.diagnostics import CheckFailed, Diagnostic

if TYPE_CHECKING:
    from sesurgery.reports.junit import Check
    from sesurgery.verification.latency import LatencyReport
    from sesurgery.verification.limits import Limit


def _limits(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[Limit, ...]:
    """`tax > 5 %` as a limit."""
    from sesurgery.verification.limits import parse

    try:
        return tuple(parse(text) for text in given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@dataclass(frozen=True)
class Checks:
    """What `--fail-if`, `--junit`, `--github-summary` and `--force` ask of the measurements of a verb."""

    suite: str
    limits: tuple[Limit, ...]
    junit: Path | None
    github_summary: Path | None
    force: bool

    def claim(self) -> None:
        """Raise UsageError for --junit without a limit, and SE405 for a file not written by this program."""
        from sesurgery.workspace.targets import claim, marked

        if self.junit is None:
            return
        if not self.limits:
            raise click.UsageError("--junit writes what --fail-if finds: give at least one limit")
        claim(self.junit, ours=marked(f'<testsuite name="{self.suite}"'), force=self.force)

    def of(self, name: str, report: LatencyReport | None) -> list[Check]:
        """One check per limit for a measured race; without a race every limit counts as broken."""
        from sesurgery.reports.junit import Check

        missing = "nothing was timed: run `sesurgery bench` first"
        return [Check(str(limit), name, limit.broken_by(report) if report else missing) for limit in self.limits]

    def judge(self, checks: Sequence[Check], summary: str) -> None:
        """Write what was found, and append to the job's summary; raises CheckFailed with SE702 for broken limits."""
        from sesurgery.artifacts import write_text
        from sesurgery.reports.junit import to_junit

        if self.junit is not None:
            write_text(self.junit, to_junit(self.suite, checks))
            click.echo(f"limits -> {self.junit.as_posix()}", err=True)
        if self.github_summary is not None:
            # Other steps of the job have written to it.
            with self.github_summary.open("a", encoding="utf-8") as stream:
                stream.write(summary)
            click.echo(f"summary -> {self.github_summary.as_posix()}", err=True)
        failures = [
            Diagnostic("SE702", f"{check.of}: --fail-if {check.name!r}: {check.failure}")
            for check in checks
            if check.failure
        ]
        if failures:
            raise CheckFailed(failures)


def gating(suite: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of a `Checks`, which the command is given as `checks`; `suite` names its results."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def gated(
            *, limits: tuple[Limit, ...], junit: Path | None, github_summary: Path | None, force: bool, **others: object
        ) -> None:
            command(checks=Checks(suite, limits, junit, github_summary, force), **others)

        return FAIL_IF(JUNIT(SUMMARY(force_option(gated))))

    return decorate


FAIL_IF = click.option(
    "--fail-if",
    "limits",
    multiple=True,
    callback=_limits,
    metavar="LIMIT",
    help="Exit with 4 if this is true, e.g. 'tax > 5 %' or 'median > 2 ms'. May be repeated.",
)
JUNIT = click.option(
    "--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write the results of --fail-if as JUnit XML."
)
SUMMARY = click.option(
    "--github-summary",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="GITHUB_STEP_SUMMARY",
    help="Append the report in GitHub's Markdown to a file. Default: $GITHUB_STEP_SUMMARY.",
)
