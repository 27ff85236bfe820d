"""^C as a request: training stops between two batches, so that no file and no weight is left half written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import lightning.pytorch as pl

from sesurgery.training.batches import Batch


class Interrupted(Exception):  # noqa: N818  (a request, not a malfunction)
    """Raised between two training batches after ^C."""


class Interruption(pl.Callback):  # type: ignore[misc]
    """Stops training before the next training batch once ^C was seen; an evaluation under way is finished first.

    A second ^C is not held back: it raises KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT over for the time of the block. Only the main thread can, and an ignored signal stays so."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            self.asked = True
            signal.signal(signal.SIGINT, before)

        signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            # Lightning leaves SIGINT ignored when it caught a KeyboardInterrupt early.
            signal.signal(signal.SIGINT, before)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Batch, index: int) -> None:
        # Several processes stop together or wait for each other forever.
        if trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            self.asked = True
            raise Interrupted
