"""How fast a training goes, and how long the rest of it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Pace:
    """Told of every batch and every epoch; `done` epochs of `epochs` were there before, `images` are one epoch's.

    Until an epoch is done, the time for evaluation is not known and left out.
    """

    epochs: int
    images: int
    done: int = 0
    clock: Callable[[], float] = time.perf_counter
    _since: tuple[str, int, float] = field(default=("", 0, 0.0), init=False)
    _seconds: dict[str, float] = field(default_factory=dict, init=False)

    def after_batch(self, phase: str, batch: int, batches: int) -> str:
        """Images a second while training, and the time left of the whole run; empty after a phase's first batch."""
        now = self.clock()
        if phase != self._since[0] or batch <= self._since[1]:
            # The first batch of a phase waits for what comes before it: workers, a compiler, a file.
            self._since = (phase, batch, now)
            return ""
        _, first, started = self._since
        each = (now - started) / (batch - first)
        self._seconds[phase] = each * batches
        after = self._seconds.get("evaluate", 0.0) if phase == "train" else 0.0
        left = each * (batches - batch) + after + (self.epochs - self.done - 1) * sum(self._seconds.values())
        rate = f"{self.images / batches / max(each, 1e-9):,.0f} images/s  " if phase == "train" else ""
        return f"{rate}{time_left(left)} of the run"

    def after_epoch(self, epoch: int, seconds: float) -> str:
        """The time left of the run; empty at its end."""
        self.done = epoch
        return "" if epoch >= self.epochs else time_left(seconds * (self.epochs - epoch))


def time_left(seconds: float) -> str:
    """A remaining time in words."""
    minutes = round(seconds / 60)
    if not minutes:
        return f"{seconds:.0f} s left"
    return f"{minutes // 60} h {minutes % 60} min left" if minutes >= 60 else f"{minutes} min left"
