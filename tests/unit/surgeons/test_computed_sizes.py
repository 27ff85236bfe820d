"""Files in which the graph computes sizes, as torch's older exporter writes them with an open batch."""

from __future__ import annotations

import io
import warnings
from operator import attrgetter

import onnx
import torch
from torch import nn
from torch.nn import functional as F

from sesurgery.networks.onnx_network import OnnxNetwork
from sesurgery.networks.torch_network import TorchNetwork
from sesurgery.onnxgraph import numerics
from tests.fixtures.surgery import rules

SHAPE = (3, 32, 32)
PLACE = attrgetter("module", "channels", "height", "width")


def opened(network: nn.Module) -> OnnxNetwork:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, *SHAPE),),
            buffer,
            dynamo=False,
            opset_version=13,
            dynamic_axes={"input": {0: "batch"}},
            input_names=["input"],
        )
    return OnnxNetwork(onnx.load_from_string(buffer.getvalue()), SHAPE)


class PadsAsNeeded(nn.Module):
    """As EfficientNets from TensorFlow pad."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        high, wide = (max((-(-size // 2) - 1) * 2 + 3 - size, 0) for size in x.shape[-2:])
        x = self.a(F.pad(x, [wide // 2, wide - wide // 2, high // 2, high - high // 2]))
        return x + self.b(x)


class Shuffles(nn.Module):
    """As ShuffleNet does: it cuts the channels in two, joins them again, and mixes them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.stem(x).chunk(2, dim=1)
        x = torch.cat([first, self.conv(second)], 1)
        batch, channels, high, wide = x.shape
        x = x.view(batch, 2, channels // 2, high, wide).transpose(1, 2).reshape(batch, -1, high, wide)
        return x.mean((2, 3))


class OpenNsfw(nn.Module):
    """The first block of open_nsfw as converted from Caffe: each border a pad of its own, layers by Caffe's names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1, self.bn_1 = nn.Conv2d(3, 8, 7, stride=2), nn.BatchNorm2d(8)
        self.conv_stage0_block0_proj_shortcut, self.bn_stage0_block0_proj_shortcut = conv_and_norm(8, 16, 1)
        self.conv_stage0_block0_branch2a, self.bn_stage0_block0_branch2a = conv_and_norm(8, 8, 1)
        self.conv_stage0_block0_branch2b, self.bn_stage0_block0_branch2b = conv_and_norm(8, 8, 3)
        self.conv_stage0_block0_branch2c, self.bn_stage0_block0_branch2c = conv_and_norm(8, 16, 1)
        self.fc_nsfw = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv_1_pad = F.pad(x, (3, 3, 3, 3))
        relu_1 = F.relu(self.bn_1(self.conv_1(conv_1_pad)))
        pool1_pad = F.pad(relu_1, (0, 1, 0, 1), value=float("-inf"))
        pool1 = F.max_pool2d(pool1_pad, kernel_size=(3, 3), stride=(2, 2), padding=0, ceil_mode=False)
        shortcut = self.bn_stage0_block0_proj_shortcut(self.conv_stage0_block0_proj_shortcut(pool1))
        branch2a = F.relu(self.bn_stage0_block0_branch2a(self.conv_stage0_block0_branch2a(pool1)))
        branch2b_pad = F.pad(branch2a, (1, 1, 1, 1))
        branch2b = F.relu(self.bn_stage0_block0_branch2b(self.conv_stage0_block0_branch2b(branch2b_pad)))
        branch2c = self.bn_stage0_block0_branch2c(self.conv_stage0_block0_branch2c(branch2b))
        eltwise_stage0_block0 = F.relu(shortcut + branch2c)
        pool = F.avg_pool2d(eltwise_stage0_block0, kernel_size=(8, 8), stride=(1, 1))
        return F.softmax(self.fc_nsfw(pool.view(pool.size(0), -1)), dim=1)


def conv_and_norm(given: int, made: int, size: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(given, made, size), nn.BatchNorm2d(made)


def test_open_nsfw_has_the_sites_of_its_module_behind_its_convolutions() -> None:
    made = OpenNsfw().eval()
    network, module = opened(made), TorchNetwork(made, SHAPE)
    kinds = [node.op_type for node in network.model.graph.node]
    assert (kinds.count("Pad"), kinds.count("ConstantOfShape")) == (3, 3)
    assert network.cost.macs == module.cost.macs
    wanted = rules({"insert": {"block": "se", "init": "identity", "min_width": 2}, "at": "conv"})
    plan, ours = network.plan(wanted), module.plan(wanted)
    assert list(map(PLACE, plan.sites)) == list(map(PLACE, ours.sites))
    assert list(map(PLACE, plan.sites)) == [
        ("conv_1.se", 8, 16, 16),
        ("conv_stage0_block0_proj_shortcut.se", 16, 8, 8),
        ("conv_stage0_block0_branch2a.se", 8, 8, 8),
        ("conv_stage0_block0_branch2b.se", 8, 8, 8),
        ("conv_stage0_block0_branch2c.se", 16, 8, 8),
    ]
    fed = numerics.feeds(network.model)
    expected = numerics.outputs(network.model, fed)
    assert numerics.difference(expected, numerics.outputs(network.apply(plan).model, fed)) < 1e-5


def test_a_pad_of_computed_sizes_has_its_sizes() -> None:
    network = opened(PadsAsNeeded())
    assert any(node.op_type == "ConstantOfShape" for node in network.model.graph.node)
    assert network.cost.macs == 16 * 16 * 9 * (3 * 8 + 8 * 8)
    (site,) = network.plan(rules({"insert": "se", "at": "residual"})).sites
    assert (site.channels, site.height, site.width) == (8, 16, 16)


def test_chunks_that_are_joined_again_are_joined_maps() -> None:
    (site,) = opened(Shuffles()).plan(rules({"insert": "se", "at": "concat"})).sites
    assert (site.channels, site.height, site.width) == (8, 16, 16)
