"""Files in which the graph computes sizes, as torch's older exporter writes them with an open batch."""

from __future__ import annotations

import io
import warnings

import onnx
import torch
from torch import nn
from torch.nn import functional as F

from sesurgery.networks.onnx_network import OnnxNetwork
from tests.fixtures.surgery import rules

SHAPE = (3, 32, 32)


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


def test_a_pad_of_computed_sizes_has_its_sizes() -> None:
    network = opened(PadsAsNeeded())
    assert any(node.op_type == "ConstantOfShape" for node in network.model.graph.node)
    assert network.cost.macs == 16 * 16 * 9 * (3 * 8 + 8 * 8)
    (site,) = network.plan(rules({"insert": "se", "at": "residual"})).sites
    assert (site.channels, site.height, site.width) == (8, 16, 16)


def test_chunks_that_are_joined_again_are_joined_maps() -> None:
    (site,) = opened(Shuffles()).plan(rules({"insert": "se", "at": "concat"})).sites
    assert (site.channels, site.height, site.width) == (8, 16, 16)
