"""What makes training faster: mixed precision with gates in fp32, torch.compile, processes that read images."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import nn

from sesurgery.diagnostics import fail
from sesurgery.spec.train import Train
from sesurgery.training.batches import Shuffled

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""By Lightning's names: weights stay in fp32, and what gains by it is computed in 16 bits."""
_WARM, _TIMED = 2, 6
"""Batches that are read before a measurement, and within it."""


def precision(recipe: Train) -> str:
    """Lightning's name of the recipe's precision; raises SE502 for fp16 without a GPU."""
    if recipe.precision == "fp16" and not torch.cuda.is_available():
        raise fail("SE502", "training in fp16 needs a GPU: a CPU computes in bf16", "set `precision: bf16`")
    return PRECISIONS[recipe.precision]


@contextlib.contextmanager
def gates_in_fp32(models: Collection[nn.Module], blocks: Collection[str]) -> Iterator[None]:
    """Within the block, inserted blocks compute in fp32 whatever autocast is set to, and give what they were given.

    A gate in 16 bits has steps of a hundredth, and its error multiplies a whole map.
    """
    wrapped = [model.get_submodule(path) for model in models for path in blocks]
    for module in wrapped:
        module.forward = functools.partial(_in_fp32, module.forward)
    try:
        yield
    finally:
        for module in wrapped:
            # The instance's own: the class's comes back.
            del module.forward


def _in_fp32(forward: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return forward(x.float()).to(x.dtype)


def prepared(network: Any, recipe: Train) -> Any:
    """The network as it is called in a step: compiled where the recipe says so. Weights and modules stay the same."""
    return torch.compile(network) if recipe.compile else network


def with_workers(recipe: Train, batches: Shuffled) -> tuple[Train, dict[int, float]]:
    """The recipe with a number of reading processes, and batches a second by number where it had to be measured.

    More processes are tried while they read at least a tenth faster.
    """
    if recipe.workers != "auto":
        return recipe, {}
    rates: dict[int, float] = {}
    most = min(os.cpu_count() or 1, len(batches))
    for workers in (0, *(2**power for power in range(most.bit_length()) if 2**power <= most)):
        rates[workers] = _rate(batches, workers)
        if rates[workers] < 1.1 * max((rate for count, rate in rates.items() if count < workers), default=0):
            break
    return recipe.model_copy(update={"workers": max(rates, key=lambda workers: rates[workers])}), rates


def _rate(batches: Shuffled, workers: int) -> float:
    before, batches.workers = batches.workers, workers
    count, started = 0, 0.0
    try:
        for index, _ in enumerate(batches):
            if index + 1 == _WARM:
                started = time.perf_counter()
            count = max(0, index + 1 - _WARM)
            if count == _TIMED:
                break
    finally:
        batches.workers = before
    return count / (time.perf_counter() - started) if count else 0.0
