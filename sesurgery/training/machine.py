"""The machine around a training run: its devices, threads, random state and processes."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from sesurgery.diagnostics import fail


@contextlib.contextmanager
def reproducible(threads: int | None, *, tf32: bool = False) -> Iterator[None]:
    """Within the block, training is deterministic: threads, random state, cuDNN. Afterwards all are as before."""
    devices = [int(os.environ.get("LOCAL_RANK", "0"))] if torch.cuda.is_available() else []
    cudnn = torch.backends.cudnn
    before = torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    products = torch.get_float32_matmul_precision()
    with torch.random.fork_rng(devices):
        if threads:
            torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, tf32
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before[1:]
            torch.set_float32_matmul_precision(products)


def seed_draws(seed: int, device: torch.device) -> None:
    """Seed what is drawn on the processor and on this device.

    `torch.manual_seed` seeds every kind of device: for each that was not used yet it takes and keeps a traceback, which
    is 2 ms a call, and memory that grows with every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """At the end of the block, all processes leave the process group together, if the block started one."""
    ours = not _initialized()
    yield
    # Not after an error: the other processes may never reach the barrier. One that exits early makes the others abort.
    if ours and _initialized():
        distributed.barrier()
        distributed.destroy_process_group()


@contextlib.contextmanager
def first_alone() -> Iterator[bool]:
    """The first process is alone in the block; the others enter it when that one has left it. Yields which this is.

    After an error in the first the others never enter: torchrun ends them.
    """
    if processes() == 1:
        yield True
        return
    rank = int(os.environ["RANK"])
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = _store(os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"], rank, again)
    # Every process counts its blocks in the store: the same number is the same block.
    done = f"done {store.add(f'blocks of {rank}', 1)}"
    if rank:
        store.wait([done])
    yield rank == 0
    if not rank:
        store.set(done, "yes")


@functools.cache
def _store(address: str, port: str, rank: int, again: str) -> Store:
    """What the processes know of one another, kept until this one ends.

    Where no agent of torchrun holds it, it is the first process's own, and that waits until all others have come: with
    a new one for each block, another process may be connected to the one before, and both wait for ever.
    """
    store, _, _ = next(rendezvous("env://"))
    return PrefixStore(f"sesurgery/{again}", store)


def _initialized() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def is_main_process() -> bool:
    """Whether this process is the first of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def processes() -> int:
    """How many processes torchrun has started, on all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def devices(batch_size: int, *, freezing: bool = False) -> dict[str, object]:
    """Options of Lightning's Trainer for this process: one device, or the processes that torchrun started.

    With `freezing`, some weights get no gradient in some epochs: with several processes, DDP has to be told.

    Raises SE502 if a batch cannot be shared equally: the mean of unequal parts' gradients is not the batch's.
    """
    if "WORLD_SIZE" not in os.environ:
        return {"accelerator": "auto", "devices": 1}
    world = processes()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if batch_size % world:
        text = f"a batch of {batch_size} cannot be shared equally by {world} processes"
        raise fail("SE502", text, f"take a multiple of {world} as `batch_size`")
    strategy = "ddp_find_unused_parameters_true" if freezing else "ddp"
    return {"accelerator": "auto", "devices": local, "num_nodes": world // local, "strategy": strategy}
