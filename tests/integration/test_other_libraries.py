"""Networks of libraries that are no dependency, each skipped where it is not installed.

Something of the same spelling stands beside each in `tests/unit/surgeons/test_any_forward.py`.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import sesurgery
from sesurgery.graph.gates import channel_gates
from sesurgery.networks.export import export
from sesurgery.networks.onnx_network import OnnxNetwork
from sesurgery.networks.torch_network import TorchNetwork
from sesurgery.spec.export import Export
from tests.fixtures.surgery import planned, rules
from tests.fixtures.thinned import without_values

SHAPE = (3, 64, 64)


def efficientnet_pytorch() -> nn.Module:
    library = pytest.importorskip("efficientnet_pytorch", reason="efficientnet_pytorch is not installed")
    return library.EfficientNet.from_name("efficientnet-b0").eval()


def smp_encoder() -> nn.Module:
    library = pytest.importorskip("segmentation_models_pytorch", reason="segmentation_models_pytorch is not installed")
    return LastMap(library.encoders.get_encoder("efficientnet-b0", weights=None)).eval()


def monai() -> nn.Module:
    networks = pytest.importorskip("monai.networks.nets", reason="MONAI is not installed")
    return networks.EfficientNetBN("efficientnet-b0", pretrained=False).eval()


def pytorchcv() -> nn.Module:
    library = pytest.importorskip("pytorchcv.model_provider", reason="pytorchcv is not installed")
    return library.get_model("efficientnet_b0b", pretrained=False).eval()


MAKERS = {
    "efficientnet_pytorch b0": efficientnet_pytorch,
    "smp efficientnet-b0": smp_encoder,
    "MONAI EfficientNetBN b0": monai,
    "pytorchcv efficientnet_b0b": pytorchcv,
}


def exported(network: nn.Module) -> onnx.ModelProto:
    """As torch's older exporter writes it, with an open batch."""
    if hasattr(network, "set_swish"):
        # Its own way to be exported: its other activation is an autograd function.
        network.set_swish(memory_efficient=False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, *SHAPE),),
            buffer,
            dynamo=False,
            opset_version=13,
            dynamic_axes={"input": {0: "batch"}},
            input_names=["input"],
        )
    return onnx.load_from_string(buffer.getvalue())


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_every_gate_of_an_efficientnet_is_seen_and_module_and_file_have_the_same_sites(name: str) -> None:
    network: nn.Module = MAKERS[name]()
    opened = TorchNetwork(network, SHAPE)
    assert len(channel_gates(opened.view)) == 16
    assert len(planned(network, SHAPE, {"remove": "se"}).removals) == 16
    assert sum(leaf.hidden + leaf.gates for leaf in opened.leaves) == 0
    file = OnnxNetwork(exported(network), SHAPE)
    assert len(channel_gates(file.view)) == 16
    wanted = rules({"insert": "se", "at": "conv"})
    ours, theirs = opened.plan(wanted), file.plan(wanted)
    assert [(site.channels, site.height) for site in ours.sites] == [
        (site.channels, site.height) for site in theirs.sites
    ]


class LastMap(nn.Module):
    """An encoder's last map: a file has one output, and the others would only be more of them."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.encoder(image)[-1]


@pytest.mark.slow
def test_a_segmenters_encoder_with_many_blocks_has_sites_all_over() -> None:
    library = pytest.importorskip("segmentation_models_pytorch", reason="segmentation_models_pytorch is not installed")
    network = library.Unet("dpn68", encoder_weights=None).eval()
    opened = TorchNetwork(network, SHAPE)
    assert opened.leaves == ()
    scopes = [site.scope for site in opened.plan(rules({"insert": "se", "at": "conv"})).sites]
    assert scopes[0] == "encoder.features.conv1_1.conv"
    assert {scope.split(".")[0] for scope in scopes} == {"encoder", "decoder"}
    # All but the class head's.
    assert len(scopes) == sum(isinstance(part, nn.Conv2d) for part in network.modules()) - 1


@pytest.mark.parametrize("name", ["airnet50_1x64d_r2", "scnet50"])
def test_every_unit_with_attention_that_goes_down_and_up_is_a_unit(name: str) -> None:
    library = pytest.importorskip("pytorchcv.model_provider", reason="pytorchcv is not installed")
    with without_values():
        network = library.get_model(name, pretrained=False).eval()
        plan = planned(network, (3, 224, 224), {"insert": "se", "at": "residual"})
    units = [scope for scope, _ in network.named_modules() if re.fullmatch(r"features\.stage\d\.unit\d", scope)]
    assert [site.scope for site in plan.sites] == units
    assert len(units) == 16


@pytest.mark.slow
def test_a_backbone_that_records_by_hooks_takes_blocks_in_its_parts() -> None:
    library = pytest.importorskip("transformers", reason="transformers is not installed")
    if not hasattr(library, "PPLCNetBackbone"):
        pytest.skip("this version of transformers has no PPLCNet")
    network = library.PPLCNetBackbone(library.PPLCNetConfig()).eval()
    changed = sesurgery.insert(network, at="conv", example_input=torch.zeros(1, *SHAPE), init="identity", expect=25)
    image = torch.randn(2, *SHAPE)
    for mode in (False, True):
        before, after = network.train(mode)(image), changed.train(mode)(image)
        assert all(map(torch.equal, before.feature_maps, after.feature_maps))


def r3d() -> nn.Module:
    from torchvision.models.video import r3d_18

    return r3d_18(weights=None, num_classes=5)


def monai_volume() -> nn.Module:
    networks = pytest.importorskip("monai.networks.nets", reason="MONAI is not installed")
    return networks.resnet10(spatial_dims=3, n_input_channels=1, num_classes=3)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "channels", "units"), [(r3d, 3, 8), (monai_volume, 1, 4)], ids=["r3d_18", "resnet10"])
@pytest.mark.parametrize("block", ["se", "eca"])
def test_a_network_of_3d_convolutions_takes_blocks_trains_and_is_exported(
    block: str, make: Callable[[], nn.Module], channels: int, units: int, tmp_path: Path
) -> None:
    network, shape = make().eval(), (channels, 8, 32, 32)
    given = {"at": "residual", "example_input": torch.zeros(1, *shape), "init": "identity", "expect": units}
    changed = sesurgery.insert(network, block=block, **given)
    keys = list(network.state_dict())
    assert [key for key in changed.state_dict() if key in keys] == keys
    clips = torch.randn(2, *shape)
    assert torch.equal(changed(clips), network(clips))
    changed(clips).square().sum().backward()
    own = [value for key, value in changed.named_parameters() if key not in keys]
    assert all(value.grad is not None for value in own)
    assert any(value.grad.any() for value in own if value.grad is not None)
    torch.optim.SGD(own, lr=0.1).step()
    assert export(changed, shape, tmp_path / "net.onnx", Export()).worst < 1e-3
