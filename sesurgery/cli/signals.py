"""SIGTERM and SIGHUP end a command as ^C does: temporary files are removed, and the exit code is 128 + N."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(KeyboardInterrupt):
    """Raised when such a signal arrives; a KeyboardInterrupt, so that what cleans up after ^C runs here too."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Stopped(Exception):  # noqa: N818  (a request that was met)
    """Work that a signal stopped where it can be resumed; the message says how."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number, self.message = number, message


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Turn the signals of `ENDING` into `Terminated` for the time of the block.

    One that is ignored stays so (`nohup`), and one that has another handler keeps it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def code(number: int) -> int:
    """The exit code of a process that a signal ended, as shells count it: 130 for ^C, 143 for SIGTERM."""
    return 128 + number


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)
