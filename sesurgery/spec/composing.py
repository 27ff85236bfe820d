"""PyYAML's nodes, no deeper and no more than a spec ever has: PyYAML recurses once a level, without a bound."""

from __future__ import annotations

import yaml

MOST_LEVELS = 32
MOST_VALUES = 20_000
"""Of a spec, with every alias written out."""


class Bounded(yaml.BaseLoader):
    """A loader that builds no objects. Raises ComposerError, with the place, where a file is too deep or too long."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._level += 1
        self._count += 1
        # A key is a node too.
        if self._level > MOST_LEVELS or self._count > 2 * MOST_VALUES:
            why = "nested too deeply" if self._level > MOST_LEVELS else f"more than {MOST_VALUES} values"
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, why, mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._level -= 1
