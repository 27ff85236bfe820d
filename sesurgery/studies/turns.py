"""Whose turn it is at the queue of a study: one process at a time, on one machine or on many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import filelock

from sesurgery.artifacts import locked
from sesurgery.spec.study import Study

KEY = 0x5E57D1E5
"""The number of the lock in a PostgreSQL database: one for all studies in it, which share its tables."""
PATIENCE = ("tcp_keepalives_idle = 10", "tcp_keepalives_interval = 5", "tcp_keepalives_count = 3")
"""25 seconds after a machine died that held the lock, the server lets it go; by its own defaults after two hours."""


@contextmanager
def held(folder: Path, asked: Study) -> Iterator[None]:
    """Hold the queue of a study, whose `folder` is its own on this machine: no other process takes a trial from it.

    Optuna takes a trial out of its queue in one step (SELECT ... FOR UPDATE, which SQLite ignores), and writes its
    parameters one by one. Between these a process that looks from another machine would see a cell that nobody asked
    for, or have the same drawn. Raises what the driver raises if a database cannot be reached.
    """
    with locked(folder), _of_database(asked.storage):
        yield


def is_exclusive(address: str | None) -> bool:
    """Whether `held` keeps out the processes of all machines that use a study's storage."""
    return address is None or address.startswith("postgresql") or _sqlite_file(address) is not None


def _of_database(address: str | None) -> AbstractContextManager[object]:
    if address is None:
        return nullcontext()
    if address.startswith("postgresql"):
        return _of_server(address)
    if (file := _sqlite_file(address)) is not None:
        return filelock.FileLock(f"{file}.lock")
    return nullcontext()


@contextmanager
def _of_server(address: str) -> Iterator[None]:
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    # Ends with the transaction, and with the process.
    with create_engine(address, poolclass=NullPool).begin() as connection:
        for setting in PATIENCE:
            connection.execute(text(f"SET LOCAL {setting}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": KEY})
        yield


def _sqlite_file(address: str) -> str | None:
    if not address.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url

    file = make_url(address).database
    return None if file in (None, "", ":memory:") else file
