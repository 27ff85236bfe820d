"""Networks of libraries that are no dependency, each skipped where it is not installed.

Something of the same spelling stands beside each in `tests/unit/surgeons/test_any_forward.py`.
"""

from __future__ import annotations

import io
import warnings

import onnx
import pytest
import torch
from torch import nn

import sesurgery
from sesurgery.graph.gates import channel_gates
from sesurgery.networks.onnx_network import OnnxNetwork
from sesurgery.networks.torch_network import TorchNetwork
from tests.fixtures.surgery import planned, rules

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
