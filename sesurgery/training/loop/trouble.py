"""What the machine may lack in the middle of a training: what is saved, and what to try."""

from __future__ import annotations

import errno
import os

import torch

from sesurgery.diagnostics import SesurgeryError, fail
from sesurgery.spec.train import Train

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OF_THE_CPU = ("not enough memory", "can't allocate memory", "bad allocation")
"""What torch says on a CPU, where it has no error of its own for it."""


def as_diagnostic(error: BaseException, held: str, recipe: Train) -> SesurgeryError | None:
    """The error as one that says what is safe (`held`) and what to try; None if it is something else."""
    if isinstance(error, OSError) and error.errno in _FULL:
        file = error.filename2 or error.filename
        where = "" if file is None or isinstance(file, int) else f"{os.fsdecode(file)}: "
        text = f"{where}{os.strerror(error.errno or 0).lower()}; {held}"
        return fail("SE801", text, "free some space, and go on with --resume")
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(part in str(error) for part in _OF_THE_CPU):
        text = f"there is not enough memory to train with batches of {recipe.batch_size}; {held}"
        return fail("SE502", text, _smaller(recipe))
    return None


def _smaller(recipe: Train) -> str:
    if recipe.batch_size % 2:
        return "take a smaller `batch_size`, and start again with --restart"
    return "go on with --resume --split 2: each batch in two halves, steps of as many samples"
