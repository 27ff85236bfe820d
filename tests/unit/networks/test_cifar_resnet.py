from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import fx, nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import cifar_resnet
from sesurgery.networks.cifar_resnet import BasicBlock, CifarResNet

FACTORIES = {
    20: cifar_resnet.resnet20,
    32: cifar_resnet.resnet32,
    44: cifar_resnet.resnet44,
    56: cifar_resnet.resnet56,
    110: cifar_resnet.resnet110,
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@dataclass(frozen=True)
class PaperRow:
    """Table 6 of arXiv 1512.03385: millions of parameters, to the digits printed there."""

    depth: int
    millions: str

    @property
    def digits(self) -> int:
        return len(self.millions.partition(".")[2])


PAPER = [PaperRow(20, "0.27"), PaperRow(32, "0.46"), PaperRow(44, "0.66"), PaperRow(56, "0.85"), PaperRow(110, "1.7")]


@pytest.mark.parametrize("row", PAPER, ids=lambda row: f"resnet{row.depth}")
def test_shortcut_a_has_the_parameters_of_the_paper(row: PaperRow) -> None:
    count = parameters(FACTORIES[row.depth](shortcut="A"))
    assert f"{count / 1e6:.{row.digits}f}" == row.millions


def test_resnet56_with_se_on_every_block_has_861818_parameters() -> None:
    model = cifar_resnet.resnet56()
    widths = [block.bn2.num_features for block in model.modules() if isinstance(block, BasicBlock)]
    assert parameters(model) + sum(2 * width * (width // 16) for width in widths) == 861_818


@pytest.mark.parametrize("depth", FACTORIES)
def test_the_name_counts_the_layers_with_weights(depth: int) -> None:
    model = FACTORIES[depth](shortcut="A")
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == depth


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_a_traced_network_computes_the_same(shortcut: cifar_resnet.Shortcut) -> None:
    model = cifar_resnet.resnet20(shortcut=shortcut).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fx.symbolic_trace(model)(images), model(images))


def test_only_the_first_block_of_a_wider_layer_has_a_downsample() -> None:
    model = cifar_resnet.resnet32()
    scopes = [name for name, module in model.named_modules() if getattr(module, "downsample", None) is not None]
    assert scopes == ["layer2.0", "layer3.0"]


def test_shortcut_a_keeps_every_second_pixel_and_fills_up_with_zeros() -> None:
    images = torch.arange(32.0).reshape(1, 2, 4, 4)
    out = cifar_resnet.ZeroPadShortcut(2, 4, stride=2)(images)
    assert torch.equal(out[:, 1:3], images[:, :, ::2, ::2])
    assert not out[:, [0, 3]].any()


def test_classes_and_channels_are_the_callers() -> None:
    model = cifar_resnet.resnet20(num_classes=7, in_channels=1)
    assert model(torch.zeros(2, 1, 16, 16)).shape == (2, 7)


@pytest.mark.parametrize("depth", [2, 18, 34])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth: int) -> None:
    with pytest.raises(SesurgeryError, match=r"SE302.*6n \+ 2 layers, not " + str(depth)):
        CifarResNet(depth)


def test_an_unknown_shortcut_is_refused() -> None:
    with pytest.raises(SesurgeryError, match=r"SE302.*unknown shortcut 'C'"):
        cifar_resnet.resnet20(shortcut="C")  # type: ignore[arg-type]
