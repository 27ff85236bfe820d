from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sesurgery.training.data.base import Data
from sesurgery.training.evaluation import logits, split_logits


def test_logits_do_not_depend_on_the_batch_size(data: Data, make_net: Callable[..., nn.Module]) -> None:
    net, images = make_net(), data.held_out.images
    assert torch.equal(split_logits(net, data.held_out, 7), logits(net, images.split(7)))
    torch.testing.assert_close(logits(net, images.split(7)), logits(net, images.split(64)), rtol=0, atol=1e-5)


def test_every_module_gets_its_own_mode_back(data: Data, make_net: Callable[..., nn.Module]) -> None:
    net = make_net().train()
    net[1].eval()
    before = [module.training for module in net.modules()]
    statistics = net[1].running_mean.clone()
    split_logits(net, data.held_out)
    assert [module.training for module in net.modules()] == before
    assert torch.equal(net[1].running_mean, statistics)


def test_modes_come_back_after_an_error(make_net: Callable[..., nn.Module]) -> None:
    net = make_net().train()
    with pytest.raises(RuntimeError):
        logits(net, [torch.zeros(1, 5, 8, 8)])
    assert net.training


def test_logits_may_meet_autograd(data: Data, make_net: Callable[..., nn.Module]) -> None:
    outputs = logits(make_net(), [data.held_out.images[:2]])
    weight = torch.ones(4, requires_grad=True)
    (outputs * weight).sum().backward()
    assert weight.grad is not None
