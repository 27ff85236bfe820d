from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from sesurgery.spec.train import Optimizer
from sesurgery.training.recipes.optimizer import make_optimizer
from sesurgery.training.recipes.schedule import warmup_cosine


def test_the_rate_climbs_in_a_line_then_falls_in_a_cosine_to_zero() -> None:
    factor = warmup_cosine(4, 12)
    assert [factor(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert factor(4) == 1.0
    assert factor(8) == pytest.approx(0.5)
    assert factor(12) == pytest.approx(0.0)
    assert all(later < earlier for earlier, later in pairwise(factor(step) for step in range(4, 13)))


def test_without_warmup_the_first_step_takes_the_full_rate() -> None:
    assert warmup_cosine(0, 10)(0) == 1.0


def test_a_warmup_as_long_as_the_run_only_climbs() -> None:
    assert [warmup_cosine(2, 2)(step) for step in range(3)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_and_biases_do_not_decay(name: str, make_net: Callable[..., nn.Module]) -> None:
    net = make_net()
    decay = {
        id(parameter): group["weight_decay"]
        for group in make_optimizer(net, Optimizer(name=name, weight_decay=0.1)).param_groups
        for parameter in group["params"]
    }
    assert {key: decay[id(parameter)] for key, parameter in net.named_parameters()} == {
        "0.weight": 0.1,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "6.weight": 0.1,
        "6.bias": 0.0,
    }


def test_frozen_parameters_are_left_out(make_net: Callable[..., nn.Module]) -> None:
    net = make_net()
    net[0].requires_grad_(False)
    trained = [p for group in make_optimizer(net, Optimizer()).param_groups for p in group["params"]]
    assert len(trained) == 4


def test_sgd_takes_no_momentum_although_nesterov_is_the_default(make_net: Callable[..., nn.Module]) -> None:
    optimizer = make_optimizer(make_net(), Optimizer(momentum=0.0))
    assert isinstance(optimizer, torch.optim.SGD)
