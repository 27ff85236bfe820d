"""What a spec may name instead of a backend."""

from __future__ import annotations

from dataclasses import dataclass

AUTO = "auto"
"""Its name in specs and on the command line."""


@dataclass(frozen=True)
class Auto:
    """Builds with every backend that can run here, and keeps the fastest engine that passes parity.

    `among` names the backends to try; the default is all of them.
    """

    among: tuple[str, ...] | None = None
