"""How a verb reports progress, without knowing who shows it."""

from __future__ import annotations

from typing import Protocol


class Talk(Protocol):
    """Receives finished lines and the progress of long work."""

    def say(self, line: str) -> None:
        """Report one line."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Long work: what it is, steps done, steps in all (0 where that is unknown), and what else is to be shown."""


class Silent:
    """Shows nothing."""

    def say(self, line: str) -> None:
        return

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        return
