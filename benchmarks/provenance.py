"""Where a figure comes from: what every file in benchmarks/results says of the machine, the code and the command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from sesurgery.artifacts import cpu_name, versions

ROOT = Path(__file__).resolve().parents[1]
CODE = ("sesurgery", "specs", "benchmarks", ":!benchmarks/results")
"""What decides a figure; results that are written meanwhile do not."""


def provenance() -> dict[str, object]:
    """The machine and what else it does, the versions, the commit and the command of this process.

    To be asked before a measurement: the tree may change while it runs.
    """
    load = [round(value, 1) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []
    return {"command": command(), "commit": commit(), "device": cpu_name(), "load": load, "versions": versions()}


def command() -> str:
    """As it was typed, from the repository's root."""
    script = Path(sys.argv[0]).resolve()
    named = script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name
    return shlex.join(["python", named, *sys.argv[1:]])


def commit() -> str | None:
    """The commit of this tree, `-dirty` where its code differs from it; None outside of a repository."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", *CODE) else "")
    except (OSError, subprocess.CalledProcessError):
        return None
