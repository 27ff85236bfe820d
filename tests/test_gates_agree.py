"""A gate is one thing in every form of a network: in the neutral graph, in ONNX and in ATen operations.

Of the zoo's families a small network each is asked, since the deeper ones repeat its units. DenseNet and the other
Inceptions are left out, which take too long, and ShuffleNet, whose shuffle torch's older exporter does not know. VGG's
placement is MobileNet's, and the units of ResNet-v2 are those of the wide ResNet.
"""

from __future__ import annotations

import functools
import io
import itertools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import timm
import torch
import torchvision
from fixtures.surgery import operated
from torch import Tensor, nn
from torch.nn import functional

from sesurgery import pipeline
from sesurgery.graph import Shape
from sesurgery.graph.gates import channel_gates
from sesurgery.lowering.fx import gates as fx_gates
from sesurgery.lowering.fx import graph as fx_graph
from sesurgery.networks.opening import open_own
from sesurgery.onnxgraph import gates as onnx_gates
from sesurgery.onnxgraph import scopes
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.simplify import simplified
from sesurgery.surgeons.fx.surgeon import FxSurgeon
from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

SHAPE = (3, 64, 64)
ZOO = Path(__file__).parent.parent / "specs" / "zoo"


class Spelled(nn.Module):
    """A convolution and an SE block behind it whose squeeze is written in some way."""

    def __init__(self, squeeze: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.se = Block(squeeze)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.se(self.stem(x).relu()).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, squeeze: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.squeeze = squeeze
        self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(self.down(self.squeeze(x).reshape(-1, 8)).relu()))
        return x * gate.reshape(-1, 8, 1, 1)


class Scaled(nn.Module):
    """An SE block between a convolution and a head, its activation before it, and its product written in some way."""

    def __init__(self, product: Callable[[Tensor, Tensor], Tensor], activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.activation = activation()
        self.se = Product(product)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.se(self.activation(self.stem(x)))).mean((2, 3))


class Product(nn.Module):
    def __init__(self, product: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.product = product
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(self.down(x.mean((2, 3), keepdim=True)).relu()))
        return self.product(gate, x)


class ScSE(nn.Module):
    """Concurrent channel and spatial gates (arXiv 1803.02579): their products are added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.down, self.up, self.space = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        gate = torch.sigmoid(self.up(self.down(functional.adaptive_avg_pool2d(x, 1)).relu()))
        return x * gate + x * torch.sigmoid(self.space(x))


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean((2, 3))": lambda x: x.mean((2, 3)),
    "mean(3).mean(2)": lambda x: x.mean(3).mean(2),
    "mean(3, True).mean(2, True)": lambda x: x.mean(3, keepdim=True).mean(2, keepdim=True),
    "view.mean": lambda x: x.view(x.size(0), x.size(1), -1).mean(2),
    "sum / (h * w)": lambda x: x.sum((2, 3)) / (x.size(2) * x.size(3)),
    "avg_pool2d of the size of the map": lambda x: functional.avg_pool2d(x, 16),
    "permute.mean": lambda x: x.permute(0, 2, 3, 1).mean((1, 2)),
    "einsum": lambda x: torch.einsum("nchw->nc", x) / 256,
    "amax": lambda x: x.amax((2, 3)),
}


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "(1 + s) * u": lambda s, u: (1 + s) * u,
    "u * s + u": lambda s, u: u * s + u,
    "2 * s * u": lambda s, u: 2 * s * u,
}


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], nn.Module]
    gates: int
    scopes: bool = True
    """Whether all forms name the same modules."""


CASES = (
    Case("timm mobilenetv3_small_050", functools.partial(timm.create_model, "mobilenetv3_small_050"), 9),
    Case("timm efficientnet_b0", functools.partial(timm.create_model, "efficientnet_b0"), 16),
    Case("timm seresnet18", functools.partial(timm.create_model, "seresnet18"), 8),
    Case("timm legacy_seresnet18", functools.partial(timm.create_model, "legacy_seresnet18"), 8),
    Case("timm regnety_002", functools.partial(timm.create_model, "regnety_002"), 13),
    Case("torchvision mobilenet_v3_small", torchvision.models.mobilenet_v3_small, 9),
    *(Case(name, functools.partial(Spelled, squeeze), 1) for name, squeeze in SPELLINGS.items()),
    *(Case(name, functools.partial(Scaled, product), 1, scopes=False) for name, product in PRODUCTS.items()),
    *(
        Case(f"behind {kind.__name__}", functools.partial(Scaled, PRODUCTS["(1 + s) * u"], kind), 1, scopes=False)
        for kind in (nn.SiLU, nn.Hardswish)
    ),
    Case("scSE", ScSE, 1, scopes=False),
    Case("no gate", plain, 0),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_forms_of_a_network_have_the_same_gates(case: Case) -> None:
    torch.manual_seed(0)
    forms = gates_by_form(case.build().eval(), SHAPE)
    assert {form: len(found) for form, found in forms.items()} == dict.fromkeys(forms, case.gates)
    if case.scopes:
        (names,) = {tuple(found) for found in forms.values()}
        assert len(set(names)) == case.gates


SIZES = {
    "sebn_inception": 64,
    "semobilenet": 64,
    "seresnet18": 64,
    "seresnet20": 32,
    "seresnet46": 32,
    "sewrn16_8": 32,
}
"""Specs of the zoo, and inputs that are large enough for their last maps to have more than one pixel."""
FLAT = ("sebn_inception", "semobilenet")
"""Their blocks are in the graph of a large module: torch's older exporter names no modules for what that calls."""


@pytest.mark.parametrize("name", SIZES)
def test_the_gates_of_a_network_of_the_zoo_are_its_blocks_in_all_forms(name: str) -> None:
    shape = (3, SIZES[name], SIZES[name])
    spec = pipeline.load_spec(ZOO / f"{name}.yaml").with_({"input.shape": list(shape)})
    network = open_own(spec)
    plan = network.plan(spec)
    forms = gates_by_form(network.apply(plan).module.eval(), shape)
    blocks = sorted(site.module for site in plan.sites)
    assert {form: len(found) for form, found in forms.items()} == dict.fromkeys(forms, len(blocks))
    named = ("neutral, of the module", "aten") if name in FLAT else tuple(forms)
    assert {form: sorted(forms[form]) for form in named} == dict.fromkeys(named, blocks)


def gates_by_form(network: nn.Module, shape: Shape) -> dict[str, list[str]]:
    """The modules that the gates of a network are in, by each form of it."""
    file = exported(network, shape)
    return {
        "neutral, of the module": [gate.scope for gate in channel_gates(FxSurgeon(shape).look(network).view)],
        "neutral, of the file": [gate.scope for gate in channel_gates(OnnxSurgeon(shape).look(file).view)],
        "onnx": of_onnx(file),
        "aten": of_aten(network, shape),
    }


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_gate_that_is_taken_out_leaves_the_map_as_it_came(name: str) -> None:
    torch.manual_seed(0)
    network = Scaled(PRODUCTS[name]).eval()
    left = operated(network, SHAPE, {"remove": "se"})
    images = torch.rand(2, *SHAPE)
    with torch.no_grad():
        plain = network.head(network.activation(network.stem(images))).mean((2, 3))
        torch.testing.assert_close(left(images), plain, rtol=0, atol=0)


def exported(network: nn.Module, shape: Shape) -> onnx.ModelProto:
    """As torch's older exporter writes it, with an open batch and sizes computed in the graph."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"x": {0: "batch"}}
        given = {"dynamo": False, "opset_version": 17, "input_names": ["x"], "dynamic_axes": axes}
        torch.onnx.export(network, (torch.zeros(2, *shape),), buffer, **given)
    return onnx.load_from_string(buffer.getvalue())


def of_onnx(file: onnx.ModelProto) -> list[str]:
    flow = Dataflow(simplified(file))
    branches = onnx_gates.gate_branches(flow)
    maker = flow.producer
    return [
        common(scopes.of_name(maker[name]) or "" for name, of in branches.items() if of == squeeze)
        for squeeze in dict.fromkeys(branches.values())
    ]


def of_aten(network: nn.Module, shape: Shape) -> list[str]:
    branches = fx_gates.gate_branches(fx_graph.capture(network, shape, (1, 8)))
    return [
        common(fx_graph.path_of(node) for node, of in branches.items() if of is squeeze)
        for squeeze in dict.fromkeys(branches.values())
    ]


def common(paths: Iterable[str]) -> str:
    """The module that all are in; of one alone its own."""
    levels = zip(*(path.split(".") for path in paths if path), strict=False)
    return ".".join(parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, levels))
