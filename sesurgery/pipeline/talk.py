"""How a verb tells what it is doing, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Talk(Protocol):
    """Takes finished lines and the state of long work."""

    def say(self, line: str) -> None:
        """One finished piece of news."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Long work: what it is, steps done, steps in all (0 where that is unknown)."""


class Silent:
    """Nobody listens."""

    def say(self, line: str) -> None:
        return

    def progress(self, what: str, done: int, total: int) -> None:
        return
