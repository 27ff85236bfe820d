"""Exit codes, decided in one place.

0 done, 1 input or machine, 2 usage, 3 a bug, 4 a check failed; 128 + N where signal N ended it: 130 for ^C, 143 for
SIGTERM, 141 where the reader of a pipe went away.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from typing import NoReturn

import click

from sesurgery.cli import machine, signals
from sesurgery.diagnostics import MOST_SHOWN, Diagnostic, SesurgeryError, described

INTERRUPTED = signals.code(signal.SIGINT)
_MACHINE = 1
_BUG = 3
_NO_READER = 141
_COMPLETION = "_SESURGERY_COMPLETE"
_SPIN = "GOMP_SPINCOUNT"
_SPIN_COUNT = "10000"
"""How often a thread of torch looks for new work before it sleeps. OpenMP's own value keeps the cores of a busy machine
occupied with waiting: a training step of ResNet-20 on two cores took 1,293 to 2,347 ms beside other programs, and 287
to 583 ms with this one; alone it took 50 to 54 ms with either. With 1000 it took 98 to 153 ms alone."""


def guarded(program: click.Command) -> NoReturn:
    """Run the program and end the process with the code that says how it went."""
    if os.environ.get(_COMPLETION):
        program.main(prog_name="sesurgery")
    if "OMP_WAIT_POLICY" not in os.environ:
        # Before torch is imported: its OpenMP reads this once.
        os.environ.setdefault(_SPIN, _SPIN_COUNT)
    with signals.raising():
        try:
            code = _run(program)
        except KeyboardInterrupt as stop:
            code = _interrupted(stop)
    machine.abandon()
    sys.exit(code)


def _run(program: click.Command) -> int:
    try:
        # Not click's `main`: it treats EOFError as ^C, and a closed pipe as an error.
        with program.make_context("sesurgery", sys.argv[1:]) as context:
            program.invoke(context)
    except SesurgeryError as error:
        _tell_all(error.diagnostics)
        return error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except signals.Stopped as stop:
        _tell(stop.message)
        return signals.code(stop.number)
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        return error.exit_code
    except click.Abort as stop:
        return _interrupted(stop)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and machine.of_output(error):
            # The reader has closed the pipe (`| head`): end silently, as other programs do.
            return _NO_READER
        if (diagnostic := machine.refused(error)) is not None:
            _tell_all([diagnostic])
            return _MACHINE
        _tell_defect(error)
        return _BUG
    return 0


def _interrupted(stop: BaseException) -> int:
    number = stop.number if isinstance(stop, signals.Terminated) else signal.SIGINT
    _tell("interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}")
    return signals.code(number)


def _tell_all(diagnostics: Sequence[Diagnostic]) -> None:
    for diagnostic in diagnostics[:MOST_SHOWN]:
        _tell(_coloured(diagnostic))
    if len(diagnostics) > MOST_SHOWN:
        _tell(f"and {len(diagnostics) - MOST_SHOWN} more")
    if len(diagnostics) > 1:
        _tell(f"{len(diagnostics)} errors")


def _tell_defect(error: Exception) -> None:
    import traceback

    details = f"command: {' '.join(sys.argv)}\n\n{traceback.format_exc()}"
    _tell(f"internal error: {described(error)}")
    try:
        with tempfile.NamedTemporaryFile("w", prefix="sesurgery-", suffix=".log", delete=False) as log:
            log.write(details)
    except OSError as why:
        _tell(f"  this is a defect of sesurgery; its details could not be written down: {why.strerror}")
    else:
        _tell(f"  this is a defect of sesurgery; the details are in {log.name}")


def _tell(text: str) -> None:
    # If stderr is closed, the exit code remains.
    with contextlib.suppress(OSError):
        click.echo(text, err=True, color=colours())


def colours() -> bool | None:
    """False if NO_COLOR is set (https://no-color.org); None decides by the output."""
    return False if os.environ.get("NO_COLOR") else None


def _coloured(diagnostic: Diagnostic) -> str:
    head, *rest = diagnostic.render().splitlines()
    tag = f"{diagnostic.severity}[{diagnostic.code}]"
    colour = "red" if diagnostic.severity == "error" else "yellow"
    lines = [head.replace(tag, click.style(tag, fg=colour, bold=True), 1)]
    for line in rest:
        caret = line.strip(" |").strip("^") == "" and "^" in line
        lines.append(click.style(line, fg=colour) if caret else line)
    return "\n".join(lines)
