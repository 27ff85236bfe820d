"""What the surgeon draws of a network."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
from torch import nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.graph import Op
from sesurgery.networks.cifar_resnet import CifarResNet
from sesurgery.surgeons.fx.surgeon import FxSurgeon

SHAPE = (8, 6, 6)


def lines(model: nn.Module, shape: tuple[int, int, int], scope: str) -> list[str]:
    view = FxSurgeon(shape).view(model)
    return [str(node) for node in view if node.scope == scope or node.scope.startswith(scope + ".")]


def test_a_cifar_unit_with_a_projection_reads_as_its_forward():
    assert lines(CifarResNet(8), (3, 32, 32), "layer2.0") == [
        "layer2_0_downsample_0 = conv(layer1_0_relu_1) [1x1 s2 p0 16->32] @layer2.0.downsample.0 : 32x16x16",
        "layer2_0_downsample_1 = norm(layer2_0_downsample_0) @layer2.0.downsample.1 : 32x16x16",
        "layer2_0_conv1 = conv(layer1_0_relu_1) [3x3 s2 p1 16->32] @layer2.0.conv1 : 32x16x16",
        "layer2_0_bn1 = norm(layer2_0_conv1) @layer2.0.bn1 : 32x16x16",
        "layer2_0_relu = act(layer2_0_bn1) @layer2.0.relu : 32x16x16",
        "layer2_0_conv2 = conv(layer2_0_relu) [3x3 s1 p1 32->32] @layer2.0.conv2 : 32x16x16",
        "layer2_0_bn2 = norm(layer2_0_conv2) @layer2.0.bn2 : 32x16x16",
        "add_1 = add(layer2_0_bn2, layer2_0_downsample_1) @layer2.0 : 32x16x16",
        "layer2_0_relu_1 = act(add_1) @layer2.0.relu : 32x16x16",
    ]


def test_a_timm_unit_adds_in_place_and_is_drawn_as_a_sum():
    assert lines(timm.create_model("resnet18"), (3, 224, 224), "layer1.0") == [
        "layer1_0_conv1 = conv(maxpool) [3x3 s1 p1 64->64] @layer1.0.conv1 : 64x56x56",
        "layer1_0_bn1 = norm(layer1_0_conv1) @layer1.0.bn1 : 64x56x56",
        "layer1_0_drop_block = pass(layer1_0_bn1) @layer1.0.drop_block : 64x56x56",
        "layer1_0_act1 = act(layer1_0_drop_block) @layer1.0.act1 : 64x56x56",
        "layer1_0_aa = pass(layer1_0_act1) @layer1.0.aa : 64x56x56",
        "layer1_0_conv2 = conv(layer1_0_aa) [3x3 s1 p1 64->64] @layer1.0.conv2 : 64x56x56",
        "layer1_0_bn2 = norm(layer1_0_conv2) @layer1.0.bn2 : 64x56x56",
        "add = add(layer1_0_bn2, maxpool) @layer1.0 : 64x56x56",
        "layer1_0_act2 = act(add) @layer1.0.act2 : 64x56x56",
    ]


def test_two_networks_of_one_architecture_have_one_digest():
    surgeon = FxSurgeon((3, 32, 32))
    assert surgeon.view(CifarResNet(8)).digest == surgeon.view(CifarResNet(8)).digest
    assert surgeon.view(CifarResNet(8)).digest != surgeon.view(CifarResNet(14)).digest


def test_training_mode_does_not_change_the_view():
    model = CifarResNet(8)
    surgeon = FxSurgeon((3, 32, 32))
    assert surgeon.view(model.train()).digest == surgeon.view(model.eval()).digest


class Sum(nn.Module):
    """x plus a convolution of it, added in the given way."""

    def __init__(self, add: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.functional = torch.ao.nn.quantized.FloatFunctional()
        self.add = add

    def forward(self, x: torch.Tensor) -> Any:
        return self.add(self, self.conv(x), x)


@dataclass(frozen=True)
class Way:
    name: str
    add: Any


WAYS = [
    Way("a + b", lambda net, a, b: a + b),
    Way("a += b", lambda net, a, b: operator.iadd(a, b)),
    Way("torch.add(a, b)", lambda net, a, b: torch.add(a, b)),
    Way("a.add(b)", lambda net, a, b: a.add(b)),
    Way("a.add_(b)", lambda net, a, b: a.add_(b)),
    Way("FloatFunctional.add(a, b)", lambda net, a, b: net.functional.add(a, b)),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_way_to_add_is_a_sum_of_the_same_two_values(way):
    sums = [node for node in FxSurgeon(SHAPE).view(Sum(way.add)) if node.op is Op.ADD]
    assert [[value.name for value in node.inputs] for node in sums] == [["conv", "x"]]


class Keeper(nn.Module):
    """Writes to itself in its forward, and holds constants in the ways in which people write them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.mean = torch.full((1, 8, 1, 1), 0.5)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        x = x - self.mean + torch.ones(1, 8, 1, 1)
        return x + self.drop(self.conv(x))


def test_a_view_leaves_no_trace_on_the_network(untouched):
    model = Keeper()
    model.drop.eval()
    before = untouched(model)
    FxSurgeon(SHAPE).view(model)
    FxSurgeon(SHAPE).leaves(model)
    assert untouched(model) == before


def test_shapes_are_those_of_a_network_in_double_precision():
    view = FxSurgeon(SHAPE).view(Sum(WAYS[0].add).double())
    assert view["conv"].shape == (8, 6, 6)


def test_values_that_are_no_maps_have_no_shape():
    view = FxSurgeon((3, 32, 32)).view(CifarResNet(8))
    assert (view["avgpool"].shape, view["flatten"].shape, view["fc"].shape) == ((64, 1, 1), None, None)


def test_an_input_that_does_not_fit_is_se304_and_says_what_fits():
    with pytest.raises(SesurgeryError, match=r"SE304.*does not take an input of 5x32x32") as caught:
        FxSurgeon((5, 32, 32)).view(CifarResNet(8))
    assert caught.value.diagnostics[0].hint == "give it images of 3 channels"
