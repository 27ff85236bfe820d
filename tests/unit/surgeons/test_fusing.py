"""Networks that fuse their own parts: blocks are never left out in silence."""

import pytest
import timm
import torch
from timm.models import reparameterize_model

SHAPE = (3, 64, 64)


@pytest.fixture
def network(request):
    """A network whose norms know its maps, as after training; fused, it is still the same function.

    With other statistics the maps of MobileOne grow to 10^9, and rounding alone opens or shuts a gate.
    """
    network = timm.create_model(request.param, num_classes=4)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
    network(torch.randn(8, *SHAPE))
    return network.eval()


@pytest.mark.parametrize(
    ("network", "at", "method"),
    [
        ("repvit_m0_9", "residual", r"RepVggDw\.fuse"),
        ("iformer_t", "residual", r"RepCPE\.fuse"),
        ("repvgg_a0", "residual", r"RepVggBlock\.reparameterize"),
        ("efficientvit_m0", "conv", r"ConvNorm\.fuse"),
    ],
    indirect=["network"],
)
def test_parts_with_a_block_between_them_are_not_fused(network, at, method, operate):
    changed = operate(network, SHAPE, insert={"block": "se", "min_width": 2}, at=at)
    with pytest.raises(RuntimeError, match=f"{method}.*insert the blocks into the result"):
        reparameterize_model(changed)
    reparameterize_model(network)


@pytest.mark.parametrize(
    ("network", "at"),
    [("mobileone_s0", "post"), ("repvgg_a0", "post"), ("efficientvit_m0", "residual")],
    indirect=["network"],
)
def test_parts_with_no_block_between_them_are_fused(network, at, operate):
    changed = operate(network, SHAPE, insert={"block": "se", "min_width": 2}, at=at)
    fused = reparameterize_model(changed)
    image = torch.randn(2, *SHAPE)
    assert len([*fused.modules()]) < len([*changed.modules()])
    with torch.no_grad():
        expected = changed(image)
        assert (fused(image) - expected).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.parametrize("network", ["repvit_m0_9"], indirect=True)
def test_blocks_go_into_a_network_that_was_fused(network, operate):
    fused = reparameterize_model(network)
    changed = operate(fused, SHAPE, insert={"block": "se", "min_width": 2, "init": "identity"}, at="residual").eval()
    image = torch.randn(2, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(changed(image), fused(image), rtol=1e-5, atol=1e-5)
