"""Maps with their channels last: blocks weigh channels there too, and no rows."""

import onnx
import pytest
import timm
import torch
from torch import Tensor, nn

import sesurgery
from sesurgery.surgeons.onnx.surgeon import OnnxSurgeon

SHAPE = (3, 16, 16)


class Mixer(nn.Module):
    """A residual unit on (batch, height, width, channels), its branch with a convolution, as in MambaOut."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(x)
        out = self.conv(out.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.fc(torch.relu(out))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.units = nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(Mixer(), Mixer())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.units(self.stem(x).permute(0, 2, 3, 1))
        return self.head(x.mean((1, 2)))


def test_a_block_weighs_the_channels_at_any_size(operate):
    network = Net().eval()
    changed = operate(network, SHAPE, insert={"block": "se", "width": 2}, at="residual").eval()
    assert changed.units[0].se.fc1.in_channels == 8
    for path in ("units.0", "units.1"):
        unit, block = network.get_submodule(path), changed.get_submodule(path).se
        unit.fc.register_forward_hook(
            lambda _, __, out, block=block: block(out.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        )
    for size in ((16, 16), (20, 12)):
        image = torch.randn(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(changed(image), network(image))


def test_a_changed_network_is_opened_again_and_exported(operate, tmp_path):
    changed = operate(Net().eval(), SHAPE, insert={"block": "se", "width": 2}, at="residual").eval()
    again = operate(changed, SHAPE, insert={"block": "eca"}, at="post")
    assert dict(again.units[0].named_children()).keys() == {"norm", "fc", "conv", "se", "eca"}
    torch.onnx.export(changed, (torch.zeros(2, *SHAPE),), tmp_path / "net.onnx", verbose=False)
    onnx.checker.check_model(tmp_path / "net.onnx", full_check=True)


@pytest.mark.parametrize("at", ["residual", "post", "conv"])
def test_the_exported_file_offers_the_same_sites(at, plan, tmp_path):
    network = Net().eval()
    torch.onnx.export(network, (torch.zeros(2, *SHAPE),), tmp_path / "net.onnx", verbose=False)
    from_torch = plan(network, SHAPE, at=at)
    view = OnnxSurgeon(SHAPE).view(onnx.load(tmp_path / "net.onnx"))
    found = {(node.shape, node.op) for node in view}
    for site in from_torch.sites:
        assert (site.channels, site.height, site.width) == (8, 16, 16)
        assert any(shape == (8, 16, 16) for shape, _ in found)


@pytest.mark.parametrize("name", ["convnext_zepto_rms_ols", "convnextv2_atto", "swin_tiny_patch4_window7_224"])
def test_a_units_width_is_its_channels_in_networks_that_turn_maps_inside(name, plan):
    shape = (3, 224, 224) if name.startswith("swin") else (3, 64, 64)
    sites = plan(
        timm.create_model(name, num_classes=4), shape, at="conv" if name.startswith("swin") else "residual"
    ).sites
    assert sites
    assert all(site.height == site.width for site in sites)


def test_mambaout_has_one_block_a_unit_on_its_channels():
    network = timm.create_model("mambaout_femto", num_classes=4).eval()
    image = torch.randn(2, 3, 64, 64)
    changed = sesurgery.insert(network, example_input=image, init="identity", min_width=4).eval()
    widths = [part.fc1.in_channels for path, part in changed.named_modules() if path.endswith(".se")]
    assert widths == [48] * 3 + [96] * 3 + [192] * 9 + [288] * 3
    with torch.no_grad():
        assert torch.equal(changed(image), network(image))
        other = torch.randn(1, 3, 96, 64)
        assert torch.equal(changed(other), network(other))
