"""Silences messages of torch's compiler that are of no use to users."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from sesurgery.muting import muted

LOGGERS = ("torch._inductor", "torch._dynamo", "torch._export", "torch.utils.cpp_extension")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """It logs its autotuning, warns of what it could do better, and that there is no CUDA on a machine without."""
    with warnings.catch_warnings(), muted(*LOGGERS):
        warnings.simplefilter("ignore")
        yield
