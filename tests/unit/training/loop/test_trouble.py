"""A full disk, a loss that is NaN, too little memory: what was saved stays, and the message says what it is."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.spec.train import Train
from sesurgery.training.checkpoint import read
from sesurgery.training.data.base import Data
from sesurgery.training.loop import FitRequest, fit
from sesurgery.training.loop.saving import Straight

Net = Callable[..., nn.Module]
Recipe = Callable[..., Train]
ALWAYS = 1e-9


class Broken(nn.Module):
    """A layer that does something else in its n-th training step."""

    def __init__(self, step: int, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.step, self.act = step, act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.step -= 1
        return self.act(x) if self.training and not self.step else x


def refused(_: torch.Tensor) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def refused_by_the_cpu(_: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory: you tried to ...")


@pytest.mark.parametrize("act", [refused, refused_by_the_cpu])
def test_too_little_memory_names_the_checkpoint_and_smaller_batches(
    act: Callable[[torch.Tensor], torch.Tensor], data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    # The sixth batch of the second epoch is the third of its second step.
    net, recipe = nn.Sequential(*make_net(), Broken(12, act)), make_recipe(accumulate=3, save_minutes=ALWAYS)
    with pytest.raises(SesurgeryError) as caught:
        fit(FitRequest(net, data, recipe, tmp_path))
    assert "SE502" in str(caught.value)
    assert "not enough memory to train with batches of 16" in str(caught.value)
    assert "last.ckpt holds the state after batch 3 of epoch 2" in str(caught.value)
    assert "--resume --split 2" in str(caught.value)
    assert (
        fit(FitRequest(net, data, make_recipe(batch_size=8, accumulate=6), tmp_path, resume=True)).epochs[-1].epoch == 3
    )


def test_a_loss_that_is_no_number_never_reaches_the_checkpoint(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path
) -> None:
    net = nn.Sequential(*make_net(), Broken(9, lambda x: x * float("nan")))
    match = r"SE502.*not finite after batch 3 of epoch 2; .*last\.ckpt holds the state after batch 2 of epoch 2"
    with pytest.raises(SesurgeryError, match=match):
        fit(FitRequest(net, data, make_recipe(save_minutes=ALWAYS), tmp_path))
    saved = read(tmp_path / "last.ckpt")
    assert saved.partial is not None
    assert saved.partial.batches == 2
    assert all(weight.isfinite().all() for weight in saved.weights.values())


def test_a_full_disk_leaves_the_checkpoint_before(
    data: Data, make_net: Net, make_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves, save = 0, Straight.save_checkpoint

    def full(self: Straight, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        nonlocal saves
        saves += 1
        save(self, checkpoint, path, storage_options)
        if saves == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Straight, "save_checkpoint", full)
    match = (
        r"SE801.*last\.ckpt: no space left on device; .*last\.ckpt holds the state after batch 1 of epoch 1\n.*--resume"
    )
    with pytest.raises(SesurgeryError, match=match):
        fit(FitRequest(make_net(), data, make_recipe(save_minutes=ALWAYS), tmp_path))
    assert sorted(path.name.partition(".out")[0] for path in tmp_path.iterdir()) == [
        "events",
        "last.ckpt",
        "metrics.csv",
        "metrics.jsonl",
    ]
    whole, gone_on = make_net(), make_net()
    fit(FitRequest(whole, data, make_recipe(), tmp_path / "whole"))
    fit(FitRequest(gone_on, data, make_recipe(), tmp_path, resume=True))
    assert torch.equal(gone_on[6].weight, whole[6].weight)
