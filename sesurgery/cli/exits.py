"""Exit codes, decided in one place: 0 done, 1 input or machine, 2 usage, 3 a bug, 4 a check failed, 130 interrupted."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from typing import NoReturn

import click

from sesurgery.diagnostics import Diagnostic, SesurgeryError

INTERRUPTED = 130
_BUG = 3


def guarded(program: click.Command) -> NoReturn:
    """Run the program and end the process with the code that says how it went."""
    try:
        program.main(prog_name="sesurgery", standalone_mode=False)
    except SesurgeryError as error:
        for diagnostic in error.diagnostics:
            click.echo(_coloured(diagnostic), err=True)
        if len(error.diagnostics) > 1:
            click.echo(f"{len(error.diagnostics)} errors", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader went away (`| head`): nothing is wrong. stdout must not be flushed again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        with tempfile.NamedTemporaryFile("w", prefix="sesurgery-", suffix=".log", delete=False) as log:
            log.write(f"command: {' '.join(sys.argv)}\n\n{traceback.format_exc()}")
        text = str(error).strip().splitlines()
        click.echo(f"internal error: {type(error).__name__}: {text[0] if text else ''}", err=True)
        click.echo(f"  this is a defect of sesurgery; the details are in {log.name}", err=True)
        sys.exit(_BUG)
    sys.exit(0)


def _coloured(diagnostic: Diagnostic) -> str:
    head, *rest = diagnostic.render().splitlines()
    tag = f"{diagnostic.severity}[{diagnostic.code}]"
    colour = "red" if diagnostic.severity == "error" else "yellow"
    lines = [head.replace(tag, click.style(tag, fg=colour, bold=True), 1)]
    for line in rest:
        caret = line.strip(" |").strip("^") == "" and "^" in line
        lines.append(click.style(line, fg=colour) if caret else line)
    return "\n".join(lines)
