"""Parameters and MACs against counts by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from sesurgery.accounting import Cost, cost


@dataclass(frozen=True)
class Case:
    name: str
    module: nn.Module
    shape: tuple[int, int, int]
    params: int
    macs: int


CASES = [
    Case("3x3", nn.Conv2d(3, 16, 3, padding=1), (3, 10, 8), 16 * 3 * 9 + 16, 10 * 8 * 16 * 3 * 9),
    Case("stride 2", nn.Conv2d(3, 16, 3, 2, 1, bias=False), (3, 10, 8), 16 * 3 * 9, 5 * 4 * 16 * 3 * 9),
    Case("depthwise", nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), (16, 6, 6), 16 * 9, 36 * 16 * 9),
    Case("linear", nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 2, 2), 12 * 5 + 5, 12 * 5),
    Case("norm, activation and pool", nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)), (4, 8, 8), 8, 0),
    Case("double precision", nn.Conv2d(3, 16, 1).double(), (3, 4, 4), 3 * 16 + 16, 16 * 3 * 16),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cost_is_what_a_person_counts(case):
    assert cost(case.module, case.shape) == Cost(case.params, case.macs)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 1, bias=False)
        self.second = nn.Conv2d(4, 4, 1, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_a_tied_parameter_counts_once_and_its_work_twice():
    assert cost(Tied(), (4, 5, 5)) == Cost(16, 2 * 25 * 16)


class Depends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if x.sum() == 0 else x


def test_a_network_that_looks_at_its_data_is_counted_on_zeros():
    assert cost(Depends(), (4, 5, 5)) == Cost(16, 25 * 16)


def test_counting_changes_nothing():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    cost(module, (3, 8, 8))
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(part.training for part in module.modules())
