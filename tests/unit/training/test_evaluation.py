from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sesurgery.training.data.base import Data, Split
from sesurgery.training.evaluation import Evaluation, evaluate, logits


class Echo(nn.Module):
    """Logits that favour the class written into the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 10 * F.one_hot(images.flatten().long(), 3).float()


def test_evaluate_counts_what_is_right() -> None:
    split = Split(torch.tensor([0.0, 1.0, 2.0, 2.0]).reshape(4, 1, 1, 1), torch.tensor([0, 1, 2, 0]))
    assert evaluate(Echo(), split, batch_size=3) == Evaluation(0.75, 3, 4, pytest.approx(2.5, abs=1e-3))


def test_logits_do_not_depend_on_the_batch_size(data: Data, make_net: Callable[..., nn.Module]) -> None:
    net, images = make_net(), data.held_out.images
    torch.testing.assert_close(logits(net, images.split(7)), logits(net, images.split(64)), rtol=0, atol=1e-5)


def test_every_module_gets_its_own_mode_back(data: Data, make_net: Callable[..., nn.Module]) -> None:
    net = make_net().train()
    net[1].eval()
    before = [module.training for module in net.modules()]
    statistics = net[1].running_mean.clone()
    evaluate(net, data.held_out)
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
