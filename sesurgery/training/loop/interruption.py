"""^C and SIGTERM as a request: training stops between two batches, so that no file or weight is left half written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from sesurgery.training.batches import Batch

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(Exception):  # noqa: N818  (a request, not a malfunction)
    """Raised between two training batches after a signal."""


class Interruption(pl.Callback):  # type: ignore[misc]
    """Stops training once a signal was seen, where the state is saved; an evaluation under way is finished first.

    A second one is not held back: it does at once what it does outside of training.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether training is to stop."""
        return self.signal is not None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over for the time of the block. Only the main thread can, and ignored ones stay so."""
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in SIGNALS}
            self._before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
        self._take()
        try:
            yield
        finally:
            # Lightning leaves SIGINT ignored when it caught a KeyboardInterrupt early.
            self._give_back()

    def stop(self, number: int) -> None:
        """Ask for the stop, as if the signal had come."""
        self.signal = self.signal or number

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Lightning has just set a handler of its own for SIGTERM, which ends training with exit code 0.
        if not self.asked:
            self._take()

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Batch, index: int) -> None:
        # Between epochs the state is saved already; within one, the code that saves checks for the request.
        if index == 0:
            self.leave_if_asked(trainer)

    def leave_if_asked(self, trainer: pl.Trainer) -> None:
        """Raise Interrupted if this process or another was asked to stop."""
        # Several processes stop together or wait for each other forever.
        if trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            self.stop(signal.SIGTERM)
            raise Interrupted

    def _take(self) -> None:
        for number in self._before:
            signal.signal(number, self._ask)

    def _give_back(self) -> None:
        for number, old in self._before.items():
            signal.signal(number, old)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.stop(number)
        self._give_back()
