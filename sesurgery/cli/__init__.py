"""The command line: one file a verb. Only here is anything printed, the environment read, or the process ended.

Verbs import the package's heavier parts when they run, so that `sesurgery --help` answers at once.
"""

from __future__ import annotations

from pathlib import Path

import click

from sesurgery import __version__
from sesurgery.cli import (
    apply,
    bench,
    build_engine,
    check,
    compare,
    data,
    demo,
    doctor,
    evaluate,
    export,
    gates,
    init,
    inspect_,
    list_,
    lower,
    package,
    plan,
    predict,
    refit,
    report,
    run,
    schema,
    study,
    train,
    verify,
)
from sesurgery.cli.exits import colours, guarded
from sesurgery.cli.strays import clean


class _InOrder(click.Group):
    """Lists verbs in the order in which they follow one another."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
@click.pass_context
def program(context: click.Context) -> None:
    """Channel attention in any convolutional backbone: spec, surgery, training, engine, parity, latency.

    A verb without its argument takes the newest run (or engine) and says which.
    """
    context.color = colours()
    clean(Path())


_ORDER = (
    *(demo, run, inspect_, init, check, plan, apply, data, train, evaluate, compare, gates),
    *(export, lower, build_engine, refit, verify, bench, report, study, predict, package, schema, list_, doctor),
)

for _verb in _ORDER:
    program.add_command(_verb.command)


def main() -> None:
    """Entry point of the `sesurgery` program."""
    guarded(program)
