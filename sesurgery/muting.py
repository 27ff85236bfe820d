"""Loggers of other libraries, held back for the time of a block: a library that prints nothing has to do that."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def fake_tensors_muted() -> Iterator[None]:
    """What goes wrong on a tensor without values is raised as well; torch's log has a traceback of it."""

    def is_critical(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.CRITICAL

    # By a filter: setting a level makes every logger of the process forget its own.
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    logger.addFilter(is_critical)
    try:
        yield
    finally:
        logger.removeFilter(is_critical)


@contextlib.contextmanager
def muted(*names: str, below: int = logging.ERROR) -> Iterator[None]:
    """Nothing under the level `below` comes from the loggers of these names; without a name, from the root logger."""
    loggers = [logging.getLogger(name) for name in names] or [logging.getLogger()]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(below)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
