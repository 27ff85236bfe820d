"""The blocks against the equations of their papers, written out by hand, and their parameter counts."""

import pytest
import torch
import torch.nn.functional as F

from sesurgery.blocks.cbam import CBAM
from sesurgery.blocks.eca import ECA
from sesurgery.blocks.effective_se import EffectiveSE
from sesurgery.blocks.gather_excite import GatherExcite
from sesurgery.blocks.scse import SCSE

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def built(block, channels=32):
    torch.manual_seed(0)
    return block.build(channels).eval()


def image(channels=32, size=(7, 5)):
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))


def params(module):
    return sum(part.numel() for part in module.parameters())


@pytest.mark.parametrize(("channels", "kernel"), [(64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)])
def test_eca_finds_its_kernel_from_the_channels(channels, kernel):
    assert params(ECA().build(channels)) == kernel


def test_eca_takes_the_kernel_it_is_given():
    assert params(ECA(kernel_size=9).build(64)) == 9
    assert params(ECA(kernel_size=9, padding="circular").build(64)) == 9


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_eca_is_one_kernel_over_neighbouring_channels(padding):
    module, x = built(ECA(kernel_size=3, padding=padding)), image()
    z = x.mean((2, 3))
    before, after = z.roll(1, 1), z.roll(-1, 1)
    if padding == "zeros":
        before[:, 0], after[:, -1] = 0, 0
    a, b, c = module.conv.weight.flatten()
    gate = torch.sigmoid(a * before + b * z + c * after)
    torch.testing.assert_close(module(x), x * gate[:, :, None, None], **CLOSE)


def test_effective_se_is_one_square_projection():
    module, x = built(EffectiveSE()), image()
    assert params(module) == 32 * 32 + 32
    gate = F.relu6(module.fc.weight[:, :, 0, 0] @ x.mean((2, 3)).T + module.fc.bias[:, None] + 3).T / 6
    torch.testing.assert_close(module(x), x * gate[:, :, None, None], **CLOSE)


def test_cbam_is_channel_attention_and_then_spatial_attention():
    module, x = built(CBAM(reduction=4, kernel_size=3)), image()
    assert params(module) == 2 * 32 * 8 + 2 * 9 + 2

    def mlp(z):
        return F.conv2d(F.relu(F.conv2d(z, module.channel.fc1.weight)), module.channel.fc2.weight)

    scaled = x * torch.sigmoid(mlp(x.mean((2, 3), keepdim=True)) + mlp(x.amax((2, 3), keepdim=True)))
    pooled = torch.cat([scaled.mean(1, keepdim=True), scaled.amax(1, keepdim=True)], 1)
    norm = module.spatial.conv.bn
    spatial = F.conv2d(pooled, module.spatial.conv.conv.weight, padding=1) / (1 + norm.eps) ** 0.5
    torch.testing.assert_close(module(x), scaled * torch.sigmoid(spatial), **CLOSE)


@pytest.mark.parametrize("combine", ["add", "max"])
def test_scse_is_both_excitations_side_by_side(combine):
    module, x = built(SCSE(combine=combine)), image()
    assert params(module) == 2 * 32 * 16 + 32
    hidden = F.relu(x.mean((2, 3)) @ module.fc1.weight[:, :, 0, 0].T)
    channel = x * torch.sigmoid(hidden @ module.fc2.weight[:, :, 0, 0].T)[:, :, None, None]
    spatial = x * torch.sigmoid(torch.einsum("nchw,c->nhw", x, module.conv.weight.flatten()))[:, None]
    expected = channel + spatial if combine == "add" else torch.maximum(channel, spatial)
    torch.testing.assert_close(module(x), expected, **CLOSE)


def test_gather_excite_without_parameters_gates_by_the_plain_mean():
    module, x = built(GatherExcite(extent=0, gather="avg")), image()
    assert params(module) == 0
    torch.testing.assert_close(module(x), x * torch.sigmoid(x.mean((2, 3), keepdim=True)), **CLOSE)


@pytest.mark.parametrize(("extent", "convs"), [(2, 1), (4, 2), (8, 3)])
def test_gather_excite_halves_the_map_once_for_every_power_of_its_extent(extent, convs):
    module, x = built(GatherExcite(extent=extent)), image(size=(16, 8))
    assert params(module) == convs * 32 * (9 + 2)
    gathered = module.gather(x)
    assert gathered.shape[2:] == (16 // extent, 8 // extent)
    torch.testing.assert_close(module(x), x * torch.sigmoid(F.interpolate(gathered, (16, 8))), **CLOSE)


def test_gather_excite_plus_has_the_two_projections_of_se():
    plain, plus = GatherExcite(extent=4), GatherExcite(extent=4, excite=True, reduction=4)
    assert params(plus.build(32)) - params(plain.build(32)) == 2 * 32 * 8 + 8 + 32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ECA(kernel_size=4).build(8), "kernel_size must be odd, found 4"),
        (lambda: ECA(kernel_size=3, gamma=1), "'kernel_size' is the kernel itself"),
        (lambda: ECA(kernel_size=9, padding="circular").build(3), "more than once around 3 channels"),
        (lambda: CBAM(kernel_size=4).build(8), "kernel_size must be odd, found 4"),
        (lambda: GatherExcite(extent=6).build(8), "0 or a power of two from 2 on, found 6"),
        (lambda: GatherExcite(extent=1).build(8), "0 or a power of two from 2 on, found 1"),
        (lambda: GatherExcite(extent=0), "needs the map's size"),
        (lambda: GatherExcite(gather="avg", init="identity"), "'init: identity' needs parameters"),
        (lambda: GatherExcite(reduction=4), "'reduction' is the hidden width of 'excite: true'"),
    ],
)
def test_options_that_make_no_block_are_turned_down(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("block", "channels", "hidden"),
    [(CBAM(), 64, 4), (SCSE(reduction=16), 32, 2), (GatherExcite(excite=True), 16, 1)],
)
def test_a_narrow_bottleneck_is_advised_against(block, channels, hidden):
    assert block.advice(channels).startswith(f"the hidden width is {hidden} at {channels} channels")
    assert block.advice(16 * 8) is None


def test_a_block_without_a_bottleneck_has_no_advice():
    assert [block.advice(1) for block in (ECA(), EffectiveSE(), GatherExcite())] == [None] * 3
