"""Loggers of other libraries, held back for the time of a block: a library that prints nothing has to do that."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


def fake_tensors_muted() -> contextlib.AbstractContextManager[None]:
    """What goes wrong on a tensor without values is raised as well; torch's log has a traceback of it."""
    return muted("torch._subclasses.fake_tensor", below=logging.CRITICAL)


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
