"""Console output: messages on stderr, data on stdout; a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from sesurgery.spec import Spec


class SpecFile(click.Path):
    """A spec's file, or `zoo:NAME` or `demo:NAME` for one that comes with the package."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from sesurgery.spec import zoo

        return zoo.packaged(str(value)) or super().convert(value, param, ctx)


class Lines:
    """Messages for logs and pipes: one line each, without progress."""

    def say(self, line: str) -> None:
        click.echo(line, err=True)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        return


class Bars:
    """Messages for a terminal, with one progress bar below them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._what = ""

    def say(self, line: str) -> None:
        self._end()
        self._progress.console.print(line, highlight=False, markup=False)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        if self._task is None or what != self._what:
            self._end()
            self._what, self._task = what, self._progress.add_task(what, total=total or None, note="")
        self._progress.update(self._task, completed=done, total=total or None, note=note)
        if total and done >= total:
            self._end()

    def _end(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = None


@contextmanager
def talking() -> Iterator[Lines | Bars]:
    """Messages in the form that suits stderr, for the duration of the block."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console

    with bar(Console(stderr=True)) as progress:
        yield Bars(progress)


def bar(console: Console) -> Progress:
    """A progress bar: steps, the time they took, the time left of them, and a note."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=console, transient=True)


def emit_json(value: Any) -> None:
    """Data for other programs, on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def spec_of(path: Path) -> Spec:
    """Load a spec that the user named, which implies consent to its code, and print what it will run."""
    from sesurgery import pipeline
    from sesurgery.spec.code import code_of

    spec = pipeline.load_spec(path)
    for name in code_of(spec):
        # Modules of this package need no mention.
        if not name.startswith("sesurgery."):
            click.echo(f"{path.as_posix()} runs your code: {name}", err=True)
    return spec


def newest(what: str, path: Path) -> Path:
    """Print which artefact is used where none was named."""
    click.echo(f"taking the newest {what}: {path.as_posix()}", err=True)
    return path


def _agree(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    if given:
        from sesurgery.trust import agreed

        ctx.with_resource(agreed())


trust = click.option(
    "--trust",
    is_flag=True,
    expose_value=False,
    callback=_agree,
    help="Run code that comes with runs or engines of other people.",
)
force = click.option("--force", is_flag=True, help="Replace an existing file even if this program did not write it.")
foreign = click.option(
    "--foreign", is_flag=True, help="Accept an engine built by another version or for another device."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")
