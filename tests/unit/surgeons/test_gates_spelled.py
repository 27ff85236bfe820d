"""One definition of a gate: however its squeeze is written, it is found, goes, and takes no second one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fixtures.surgery import planned
from torch import nn
from torch.nn import functional as F

import sesurgery
from sesurgery.diagnostics import SesurgeryError
from sesurgery.graph.gates import channel_gates
from sesurgery.planner import Plan
from sesurgery.surgeons.fx.surgeon import FxSurgeon

SHAPE = (8, 6, 6)
Squeeze = Callable[[torch.Tensor], torch.Tensor]

SQUEEZES: dict[str, Squeeze] = {
    "a pool as large as the map": lambda x: F.avg_pool2d(x, x.size(2)),
    "view and mean": lambda x: x.view(x.size(0), x.size(1), -1).mean(2).view(x.size(0), x.size(1), 1, 1),
    "mean of means": lambda x: x.mean(3).mean(2)[:, :, None, None],
    "means that keep their dimensions": lambda x: x.mean(3, keepdim=True).mean(2, keepdim=True),
    "a sum over the number of pixels": lambda x: x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3]),
    "channels last": lambda x: x.permute(0, 2, 3, 1).mean((1, 2)).unsqueeze(-1).unsqueeze(-1),
    "einsum": lambda x: torch.einsum("bchw->bc", x).view(x.shape[0], x.shape[1], 1, 1) / 36,
    "an adaptive pool": lambda x: F.adaptive_avg_pool2d(x, 1),
}


class Gated(nn.Module):
    def __init__(self, squeeze: Squeeze) -> None:
        super().__init__()
        self.conv, self.next = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.fc1, self.fc2 = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.squeeze = squeeze

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(self.squeeze(y)))))
        return self.next(x + y * gate)


class SpatialAndChannel(Gated):
    """scSE: the sum of a channel gate and a spatial one."""

    def __init__(self) -> None:
        super().__init__(SQUEEZES["an adaptive pool"])
        self.spatial = nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(self.squeeze(y)))))
        return self.next(x + (y * gate + y * torch.sigmoid(self.spatial(y))))


@pytest.mark.parametrize("name", SQUEEZES)
def test_a_gate_is_found_however_its_squeeze_is_written(name):
    (gate,) = channel_gates(FxSurgeon(SHAPE).view(Gated(SQUEEZES[name])))
    assert (gate.value.name, gate.projections) == ("conv", 2)


@pytest.mark.parametrize("name", SQUEEZES)
def test_no_second_gate_goes_behind_it(name):
    with pytest.raises(SesurgeryError, match="it has a channel gate already"):
        sesurgery.insert(Gated(SQUEEZES[name]), example_input=torch.zeros(1, *SHAPE))


def removal(model: nn.Module) -> Plan:
    return planned(model, SHAPE, {"remove": "se"})


@pytest.mark.parametrize("name", ["view and mean", "a sum over the number of pixels"])
def test_it_can_be_taken_out(name):
    model: Any = Gated(SQUEEZES[name]).eval()
    bare = FxSurgeon(SHAPE).apply(model, removal(model))
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(bare(x), model.next(x + model.conv(x)))
    assert [*bare.state_dict()] == ["conv.weight", "conv.bias", "next.weight", "next.bias"]


def test_a_channel_gate_and_a_spatial_one_are_one_gate():
    (gate,) = channel_gates(FxSurgeon(SHAPE).view(SpatialAndChannel()))
    assert (gate.mul.op.value, gate.value.name, gate.projections) == ("add", "conv", 3)
    with pytest.raises(SesurgeryError, match="it has a channel gate already"):
        sesurgery.insert(SpatialAndChannel(), example_input=torch.zeros(1, *SHAPE))


def test_a_spatial_gate_alone_is_no_channel_gate():
    class Spatial(Gated):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.next(x + y * torch.sigmoid(y.mean(1, keepdim=True)))

    assert channel_gates(FxSurgeon(SHAPE).view(Spatial(SQUEEZES["einsum"]))) == []
