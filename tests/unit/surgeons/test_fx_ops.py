"""What kind of operation a module or a function is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from sesurgery.graph import Op
from sesurgery.surgeons.fx.surgeon import FxSurgeon


class One(nn.Module):
    """One operation after a convolution."""

    def __init__(self, step: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 1)
        self.step = step

    def forward(self, x: torch.Tensor) -> Any:
        return self.step(self.stem(x))


@dataclass(frozen=True)
class Case:
    name: str
    step: Any
    op: Op


CASES = [
    Case("batch norm", nn.BatchNorm2d(4), Op.NORM),
    Case("group norm", nn.GroupNorm(2, 4), Op.NORM),
    Case("instance norm", nn.InstanceNorm2d(4), Op.NORM),
    Case("frozen batch norm", torchvision.ops.FrozenBatchNorm2d(4), Op.NORM),
    Case("a class of frozen batch norms", type("Own", (torchvision.ops.FrozenBatchNorm2d,), {})(4), Op.NORM),
    Case("functional batch norm", lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4)), Op.NORM),
    Case("relu module", nn.ReLU(), Op.ACT),
    Case("gelu module", nn.GELU(), Op.ACT),
    Case("functional relu", lambda x: F.relu(x), Op.ACT),
    Case("method relu_", lambda x: x.relu_(), Op.ACT),
    Case("sigmoid", torch.sigmoid, Op.ACT),
    Case("softmax is not an activation of single values", nn.Softmax(1), Op.OTHER),
    Case("max pool", nn.MaxPool2d(2), Op.POOL),
    Case("functional average pool", lambda x: F.avg_pool2d(x, 2), Op.POOL),
    Case("adaptive pool to one", nn.AdaptiveAvgPool2d(1), Op.GLOBAL_POOL),
    Case("adaptive pool to a pair of ones", nn.AdaptiveMaxPool2d((1, 1)), Op.GLOBAL_POOL),
    Case("adaptive pool to more", nn.AdaptiveAvgPool2d(2), Op.POOL),
    Case("functional adaptive pool to one", lambda x: F.adaptive_avg_pool2d(x, 1), Op.GLOBAL_POOL),
    Case("functional adaptive pool to more", lambda x: F.adaptive_avg_pool2d(x, (2, 1)), Op.POOL),
    Case("mean over height and width", lambda x: x.mean((2, 3)), Op.GLOBAL_POOL),
    Case("mean counted from the end", lambda x: torch.mean(x, dim=(-1, -2), keepdim=True), Op.GLOBAL_POOL),
    Case("mean over channels", lambda x: x.mean((1,)), Op.OTHER),
    Case("flatten", nn.Flatten(), Op.RESHAPE),
    Case("functional flatten", lambda x: torch.flatten(x, 1), Op.RESHAPE),
    Case("method view", lambda x: x.view(x.shape[0], -1), Op.RESHAPE),
    Case("concatenation", lambda x: torch.cat([x, x], 1), Op.CONCAT),
    Case("product", lambda x: x * x, Op.MUL),
    Case("dropout passes its value on when evaluating", nn.Dropout(), Op.PASS),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_operation_has_its_kind(case):
    *_, last, output = FxSurgeon((4, 6, 6)).view(One(case.step))
    assert output.op is Op.OUTPUT
    assert last.op is case.op


def test_a_concatenation_reads_one_value_twice():
    *_, cat, _ = FxSurgeon((4, 6, 6)).view(One(lambda x: torch.cat([x, x], 1)))
    assert str(cat) == "cat = concat(stem, stem) : 8x6x6"


@dataclass(frozen=True)
class Geometry:
    conv: nn.Conv2d
    text: str


GEOMETRIES = [
    Geometry(nn.Conv2d(4, 8, 3, 2, 1), "3x3 s2 p1 4->8"),
    Geometry(nn.Conv2d(4, 4, 3, padding=1, groups=4), "3x3 s1 p1 g4 4->4"),
    Geometry(nn.Conv2d(4, 8, (1, 3), padding=(0, 1)), "1x3 s1 p0x1 4->8"),
    Geometry(nn.Conv2d(4, 8, 3, padding=2, dilation=2), "3x3 s1 p2 d2 4->8"),
    Geometry(nn.Conv2d(4, 8, 5, padding="same"), "5x5 s1 p2 4->8"),
    Geometry(nn.Conv2d(4, 8, 3, padding="valid"), "3x3 s1 p0 4->8"),
]


@pytest.mark.parametrize("given", GEOMETRIES, ids=lambda given: given.text)
def test_a_convolution_tells_its_geometry(given):
    _, _, conv, _ = FxSurgeon((4, 6, 6)).view(One(given.conv))
    assert str(conv.conv) == given.text
