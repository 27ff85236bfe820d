"""Running a build so that it can be interrupted, and writing its plan to a file as it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE = 0.1
"""Seconds between looks at whether the user wants to stop."""


def can_stream(trt: ModuleType) -> bool:
    """Whether a plan can go to a file piece by piece: 10.13 and later, and TensorRT-RTX."""
    return hasattr(trt, "IStreamWriter") and hasattr(trt.Builder, "build_serialized_network_to_stream")


def writer(trt: ModuleType, path: Path) -> Any:
    """An IStreamWriter into a file; what the file system raises is kept in `raised` and ends the build."""

    class Writer(trt.IStreamWriter):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.raised: BaseException | None = None
            self.written = 0
            self.file = path.open("wb")

        def write(self, data: bytes) -> int:
            try:
                count = self.file.write(data)
            except BaseException as error:
                # Nothing may be raised into the builder; fewer bytes than given tell it that writing failed.
                self.raised = error
                return 0
            self.written += count
            return count

        def close(self) -> None:
            self.file.close()

    return Writer()


def interruptible(work: Callable[[], T], cancel: Callable[[], None]) -> T:
    """`work()` in a thread, so that ^C reaches the caller while it is in a library that does not look for it.

    An interruption calls `cancel`, waits until the work has ended, and is raised then.
    """
    results: list[T] = []
    raised: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            raised.append(error)
        finally:
            ended.set()

    interrupted: BaseException | None = None
    thread = threading.Thread(target=run, name="build")
    thread.start()
    while not ended.is_set():
        try:
            # Not `join`: once interrupted, it takes a thread that still runs for one that has ended.
            ended.wait(PATIENCE)
        except BaseException as error:
            interrupted = interrupted or error
            cancel()
    thread.join()
    if interrupted is not None:
        raise interrupted
    if raised:
        raise raised[0]
    return results[0]
