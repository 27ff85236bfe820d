"""train() and eval() after surgery: what depends on the mode depends on it as before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torch.nn import functional as F

from sesurgery.surgeons.fx.surgeon import FxSurgeon

SHAPE = (8, 6, 6)
IDENTITY = {"block": "se", "reduction": 2, "init": "identity"}


class Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)


class Functional(Stem):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + F.dropout(self.conv(x), 0.5, training=self.training)


class Inner(nn.Module):
    """Functional dropout in a module of its own, whose mode is not the root's."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = Functional()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.unit(x)


class Module(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(self.conv(x))


class Path(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.drop = DropPath(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(self.conv(x))


class Noise(nn.Module):
    """Branches on the mode, which no tracer can follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return x + torch.randn_like(x)
        return x


class Branching(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.noise = Noise()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.noise(self.conv(x))


NETWORKS = [Functional, Inner, Module, Path, Branching]


def answers(model: nn.Module, seed: int) -> torch.Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model(torch.ones(16, *SHAPE))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("operated_in", ["train", "eval"])
def test_both_modes_answer_as_the_original_does(network, operated_in, operate):
    model: Any = network().train(operated_in == "train")
    changed = operate(model, SHAPE, insert=IDENTITY)
    assert changed.training == model.training
    for mode in (True, False, True):
        model.train(mode)
        changed.train(mode)
        assert torch.equal(answers(changed, seed=1), answers(model, seed=1))


@pytest.mark.parametrize("network", NETWORKS)
def test_training_is_random_and_evaluating_is_not(network, operate):
    changed = operate(network(), SHAPE)
    assert not torch.equal(answers(changed.train(), seed=1), answers(changed, seed=2))
    assert torch.equal(answers(changed.eval(), seed=1), answers(changed, seed=2))


def test_a_part_alone_can_be_put_in_eval_mode(operate):
    changed = operate(Inner(), SHAPE).train()
    changed.unit.eval()
    assert torch.equal(answers(changed, seed=1), answers(changed, seed=2))


def test_a_forward_that_branches_on_the_mode_is_drawn_as_it_is_in_evaluation():
    assert FxSurgeon(SHAPE).leaves(Branching()) == ()


def test_dropout_alone_forces_no_leaf():
    assert FxSurgeon(SHAPE).leaves(Inner()) == ()
    assert FxSurgeon(SHAPE).leaves(Module()) == ()
