"""The commuting square: surgery then export equals export then surgery, in sites and in outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from torch import Tensor, nn

from sesurgery import pipeline, planner
from sesurgery.networks.cifar_resnet import CifarResNet
from sesurgery.planner import Plan
from sesurgery.surgeons.fx.surgeon import FxSurgeon
from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

TOLERANCE = 1e-5
SE = {"block": "se", "reduction": 4, "min_width": 4}


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 around a projection."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, stride, 1, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.bn3 = nn.Conv2d(8, out, 1, bias=False), nn.BatchNorm2d(out)
        self.act = nn.SiLU()
        self.down = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv1(x)))
        y = self.act(self.bn2(self.conv2(y)))
        return self.act(self.bn3(self.conv3(y)) + self.down(x))


class Mixed(nn.Module):
    """Three branches, one of them pooled, joined along the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(channels, 8, 1), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(channels, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(channels, 8, 1), nn.Hardswish())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.pooled(x)], 1)


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def bottlenecks() -> nn.Module:
    return nn.Sequential(Bottleneck(3, 16, 1), Bottleneck(16, 32, 2), head(32))


def vgg() -> nn.Module:
    steps: list[nn.Module] = []
    for before, after in ((3, 8), (8, 16), (16, 16)):
        steps += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(nn.Sequential(*steps), nn.Dropout(0.5), head(16))


def layer_norms() -> nn.Module:
    """Norms of the channels, for which an exporter turns the map and turns it back."""
    steps: list[nn.Module] = []
    for before, after in ((3, 8), (8, 16)):
        steps += [nn.Conv2d(before, after, 3, 2, 1), torchvision.models.convnext.LayerNorm2d(after), nn.GELU()]
    return nn.Sequential(*steps, nn.Conv2d(16, 24, 1), torchvision.models.convnext.LayerNorm2d(24), head(24))


def inception() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Mixed(8), nn.MaxPool2d(2), Mixed(24), head(24))


@dataclass(frozen=True)
class Network:
    """A small network by name."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, int, int]


NETWORKS = {
    item.name: item
    for item in (
        Network("resnet", lambda: CifarResNet(8), (3, 32, 32)),
        Network("bottlenecks", bottlenecks, (3, 16, 16)),
        Network("mobilenet_v3", torchvision.models.mobilenet_v3_small, (3, 64, 64)),
        Network("vgg", vgg, (3, 32, 32)),
        Network("inception", inception, (3, 16, 16)),
        Network("layer_norms", layer_norms, (3, 32, 32)),
    )
}

RESIDUAL = ("residual", "pre", "post", "identity", "inner")
CASES = [
    *((name, {"insert": SE, "at": at}) for name in ("resnet", "bottlenecks") for at in (*RESIDUAL, "conv")),
    *(("mobilenet_v3", {"insert": SE, "at": at}) for at in ("residual", "pre", "post", "identity")),
    ("mobilenet_v3", {"insert": SE, "at": "conv", "name": "extra", "within": "features.0*"}),
    ("mobilenet_v3", {"remove": "se", "expect": 9}),
    ("mobilenet_v3", {"replace": "se", "insert": SE, "name": "attention", "expect": 9}),
    ("vgg", {"insert": SE, "at": "conv", "expect": 3}),
    ("vgg", {"insert": {"block": "cbam"}, "at": {"placement": "conv", "spatial_only": True}, "stages": [1]}),
    ("vgg", {"insert": {"block": "se", "squeeze": "max", "init": "identity"}, "at": "conv"}),
    ("vgg", {"insert": {"block": "se", "squeeze": "none"}, "at": "conv", "stages": [1]}),
    ("layer_norms", {"insert": SE, "at": "conv", "expect": 3}),
    ("inception", {"insert": SE, "at": "concat", "expect": 2}),
    ("inception", {"insert": {"block": "eca"}, "at": "concat", "pick": "last"}),
    ("resnet", {"insert": SE, "at": {"placement": "module", "names": ["layer2.0", "layer1.0.bn1", "relu"]}}),
    ("resnet", {"insert": {"block": "timm", "name": "gc", "kwargs": {"rd_ratio": 0.25}}, "at": "residual", "every": 2}),
]


@cache
def network(name: str) -> nn.Module:
    """The network with norms that a training has moved and weights that let the image through to the logits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = NETWORKS[name].make().eval()
        for module in made.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.2)
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
        last = [module for module in made.modules() if isinstance(module, nn.Linear)][-1]
        with torch.inference_mode():
            size = made(torch.randn(2, *NETWORKS[name].shape)).abs().max()
        # The tolerance is absolute: logits are to be about one.
        last.weight.data /= size
        last.bias.data /= size
    return made


@cache
def exported(name: str) -> onnx.ModelProto:
    return export(network(name), NETWORKS[name].shape)


def export(model: nn.Module, shape: tuple[int, int, int]) -> onnx.ModelProto:
    from sesurgery.networks.export import convert
    from sesurgery.spec.export import Export

    return convert(model.eval(), shape, Export())


def planned(rule: dict[str, Any], shape: tuple[int, int, int], surgeon: Any, model: Any) -> Plan:
    spec = pipeline.load_spec(
        {
            "version": 1,
            "model": {"source": "timm", "name": "not built: the network is at hand"},
            "input": {"shape": list(shape)},
            "surgery": [rule],
        }
    )
    return planner.plan(spec, surgeon.view(model))


def outline(plan: Plan) -> list[tuple[object, ...]]:
    """What must not depend on the representation."""
    rows = [*plan.sites, *plan.removals]
    return [(row.key, row.scope, row.stage, row.channels, row.height, row.width) for row in rows]


def answer(model: onnx.ModelProto, image: Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rule"), CASES, ids=[f"{name}-{rule}" for name, rule in CASES])
def test_surgery_and_export_commute(name: str, rule: dict[str, Any]) -> None:
    shape, model, file = NETWORKS[name].shape, network(name), exported(name)
    through_fx, through_onnx = FxSurgeon(shape), OnnxSurgeon(shape)
    fx_plan, onnx_plan = planned(rule, shape, through_fx, model), planned(rule, shape, through_onnx, file)
    assert outline(onnx_plan) == outline(fx_plan)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        changed = through_fx.apply(copy.deepcopy(model), fx_plan).eval()
    values = {key: value.numpy() for key, value in changed.state_dict().items()}
    result = through_onnx.apply(file, onnx_plan, values)
    onnx.checker.check_model(result, full_check=True)

    image = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = changed(image).numpy()
    found = answer(result, image)
    # Without its gates a network that was trained with them puts out larger numbers.
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1, np.abs(expected).max()))
    if rule.get("insert", {}).get("init") != "identity":
        assert np.abs(found - answer(file, image)).max() > 10 * TOLERANCE


@pytest.mark.slow
def test_the_changed_file_and_the_exported_network_tell_the_same_modules() -> None:
    rule, shape = {"insert": SE, "at": "residual"}, (3, 32, 32)
    surgeon = OnnxSurgeon(shape)
    with torch.random.fork_rng():
        changed = FxSurgeon(shape).apply(
            copy.deepcopy(network("resnet")), planned(rule, shape, FxSurgeon(shape), network("resnet"))
        )
        result = surgeon.apply(exported("resnet"), planned(rule, shape, surgeon, exported("resnet")))
    again = {"remove": "se", "expect": 3}
    assert outline(planned(again, shape, surgeon, result)) == outline(
        planned(again, shape, surgeon, export(changed, shape))
    )
