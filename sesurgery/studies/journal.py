"""The file that a study's trials are kept in: Optuna's journal, mended where a process was cut off while it wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import filelock
from optuna.storages.journal import JournalFileBackend


class _Lock:
    """A lock that ends with the process that holds it; Optuna's own is a file, for which others wait 30 seconds."""

    def __init__(self, path: Path) -> None:
        self.lock = filelock.FileLock(path)

    def acquire(self) -> bool:
        self.lock.acquire()
        return True

    def release(self) -> None:
        self.lock.release()


class Journal(JournalFileBackend):  # type: ignore[misc]
    """Optuna's journal at `path`. A line that a full disk or kill -9 cut off is taken away before the next is written.

    Optuna would write the next one behind it, and from then on read nothing from there.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.lock = path, _Lock(path.with_name(f".{path.name}.lock"))
        super().__init__(str(path), self.lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        # The same process may take the lock twice.
        with self.lock.lock:
            self._mend()
            super().append_logs(logs)

    def _mend(self) -> None:
        with self._path.open("rb+") as stream:
            if not stream.seek(0, os.SEEK_END):
                return
            stream.seek(-1, os.SEEK_END)
            if stream.read() != b"\n":
                stream.seek(0)
                stream.truncate(stream.read().rfind(b"\n") + 1)
