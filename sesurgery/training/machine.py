"""The machine around a training run: its devices, threads, random state and processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import distributed

from sesurgery.diagnostics import fail


@contextlib.contextmanager
def settings(threads: int | None) -> Iterator[None]:
    """Threads, random state and cuDNN's determinism for the time of the block; the caller's come back after it."""
    devices = [int(os.environ.get("LOCAL_RANK", "0"))] if torch.cuda.is_available() else []
    cudnn = torch.backends.cudnn
    before = torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark
    with torch.random.fork_rng(devices):
        if threads:
            torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = True, False
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            cudnn.deterministic, cudnn.benchmark = before[1:]


@contextlib.contextmanager
def company() -> Iterator[None]:
    """Leave the process group together at the end of the block, where the block formed one."""
    ours = not _grouped()
    yield
    # Not after an error: the others may never come. A process that exits early makes its neighbours abort.
    if ours and _grouped():
        distributed.barrier()
        distributed.destroy_process_group()


def _grouped() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def leads() -> bool:
    """Whether this process is the first of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def devices(batch_size: int, *, standing_still: bool = False) -> dict[str, object]:
    """Trainer's options for this process: one device, or what torchrun has set up around it.

    `standing_still` says that some weights get no gradient in some epochs, which several processes must expect.

    Raises SE502 where a batch has fewer samples than there are processes.
    """
    if "WORLD_SIZE" not in os.environ:
        return {"accelerator": "auto", "devices": 1}
    world = int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if batch_size < world:
        raise fail("SE502", f"a batch of {batch_size} cannot be shared by {world} processes", "raise `batch_size`")
    strategy = "ddp_find_unused_parameters_true" if standing_still else "ddp"
    return {"accelerator": "auto", "devices": local, "num_nodes": world // local, "strategy": strategy}
