"""The program as a user starts it, without the seconds that a process of its own costs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sesurgery.cli import main


@dataclass(frozen=True)
class Ended:
    """How the program ended and what it wrote, all the way down to the file descriptors."""

    code: int
    out: str
    err: str


@pytest.fixture
def sesurgery(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`sesurgery("plan", "x.yaml")`: the real entry point, exit codes and all."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["sesurgery", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run
