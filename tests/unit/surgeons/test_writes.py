"""Writes in place: every name of a tensor means what was written to it, with blocks in between as without."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sesurgery.surgeons.fx.surgeon import FxSurgeon

SHAPE = (8, 6, 6)
IDENTITY = {"block": "se", "width": 2, "init": "identity"}


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 4, 1)
        self.relu = nn.ReLU(inplace=True)


class Statement(Base):
    """The sum's own value is thrown away: the name that is read again holds it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        out.add_(x)
        return self.head(torch.relu(out))


class TwoNames(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        total = out
        total += x
        return self.head(total) - 2 * self.head(torch.relu(out))


class Twice(Base):
    """Written to twice, and read by another name after either."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        total = out
        total += x
        first = self.head(out)
        total *= 3.0
        return first - self.head(F.relu(out))


class Shortcut(Base):
    """An activation in place on what the shortcut reads afterwards."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        out = self.conv(self.relu(x))
        return self.head(out + x)


class Function(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        return self.head(self.conv(F.relu(x, inplace=True)) + x)


class Earlier(Base):
    """Who read before the write keeps what it read."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        before = self.head(out)
        out += x
        return before - self.head(out)


class Number(Base):
    """`+=` on a number makes another number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        side = x.shape[-1]
        more = side
        more += 1
        out = self.conv(x) + x
        return self.head(out) * more - side


NETWORKS = [Statement, TwoNames, Twice, Shortcut, Function, Earlier, Number]


@pytest.mark.parametrize("network", NETWORKS)
def test_an_identity_keeps_what_each_name_means(network, operate):
    model, image = network().eval(), torch.randn(2, *SHAPE)
    changed = operate(model, SHAPE, insert=IDENTITY)
    with torch.no_grad():
        torch.testing.assert_close(changed(image.clone()), model(image.clone()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_with_blocks_takes_more_and_keeps_what_each_name_means(network, operate):
    model, image = network().eval(), torch.randn(2, *SHAPE)
    twice = operate(operate(model, SHAPE, insert=IDENTITY), SHAPE, insert=IDENTITY, at="post", name="late")
    with torch.no_grad():
        torch.testing.assert_close(twice(image.clone()), model(image.clone()), rtol=0, atol=1e-6)


def test_the_view_draws_who_reads_the_sum():
    view = FxSurgeon(SHAPE).view(Statement())
    assert [node.name for node in view["relu"].inputs] == ["add_"]


def test_a_block_before_a_sum_in_place_learns(operate):
    changed = operate(TwoNames(), SHAPE, insert={"block": "se", "width": 2})
    changed(torch.randn(2, *SHAPE)).square().mean().backward()
    assert changed.se.fc2.weight.grad.abs().max() > 0
