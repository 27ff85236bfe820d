"""Why something was left alone or done: a kind to count by, a place, and a text for people that nobody takes apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reason:
    """`kind` is a short name that stays the same whatever names and numbers the text has; `where` is a node or scope.

    A reason quoted from elsewhere (an exception, another program) has no kind. `figure` is what was found, where
    that tells reasons of one kind apart ("16 channels"); it serves counting alone.
    """

    kind: str
    where: str
    text: str
    figure: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"

    def to_dict(self) -> dict[str, str]:
        """As files hold it."""
        return {"kind": self.kind, "where": self.where, "text": self.text}


def by_kind(reasons: Iterable[Reason]) -> list[list[Reason]]:
    """Reasons of one kind and figure together, the most common first; those without a kind where they say the same."""
    groups: dict[tuple[str, str], list[Reason]] = {}
    for reason in reasons:
        groups.setdefault((reason.kind, reason.figure if reason.kind else reason.text), []).append(reason)
    return sorted(groups.values(), key=len, reverse=True)
