"""The demo, as a script: the same as `sesurgery demo`, which needs no checkout."""

from __future__ import annotations

from sesurgery.cli.demo import command
from sesurgery.cli.exits import guarded

if __name__ == "__main__":
    guarded(command)
