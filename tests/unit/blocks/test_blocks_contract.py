"""What every block promises, over the examples of all of them: any size of map, traceable, learning, exact identity."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from sesurgery.blocks import BLOCKS
from sesurgery.surgeons.fx.tracing import trace

EXAMPLES = [
    pytest.param(block, id=f"{name}-{index}-{getattr(block, 'name', getattr(block, 'init', 'default'))}")
    for name in BLOCKS.names()
    for index, block in enumerate(BLOCKS.examples(name))
    if name != "python"
]
IDENTITIES = [given for given in EXAMPLES if getattr(given.values[0], "init", "default") == "identity"]

# Constants that the mathematics takes out again: before a softmax over positions, or before a batch norm.
CANNOT_MATTER = {"gc": {"conv_attn.bias"}, "gca": {"conv_attn.bias"}, "nl": {"p.bias", "g.bias", "z.bias"}}


def built(block, channels=64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return block.build(channels)


def image(channels=64, size=(7, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    offset = torch.randn(4, channels, 1, 1, generator=generator)
    return torch.randn(4, channels, *size, generator=generator) + offset


@pytest.mark.parametrize("block", EXAMPLES)
@pytest.mark.parametrize("size", [(7, 5), (1, 1), (2, 9)])
def test_a_block_takes_maps_of_any_size(block, size):
    x = image(size=size)
    y = built(block).eval()(x)
    assert y.shape == x.shape
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("block", EXAMPLES)
def test_a_block_is_traced_through(block):
    network = nn.Sequential(nn.Conv2d(3, 16, 3), built(block, 16))
    assert trace(network, (3, 18, 18)).leaves == ()


@pytest.mark.parametrize("block", EXAMPLES)
def test_every_parameter_learns_within_a_few_steps(block):
    module = built(block).train()
    asleep = {name for name, _ in module.named_parameters()}
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01) if asleep else None
    for seed in range(6 if optimizer else 0):
        x, target = image(seed=seed), image(seed=100 + seed)
        optimizer.zero_grad()
        (module(x) * target).mean().backward()
        asleep -= {name for name, part in module.named_parameters() if part.grad.abs().max() > 1e-7}
        optimizer.step()
    assert asleep == CANNOT_MATTER.get(getattr(block, "name", ""), set())


@pytest.mark.parametrize("block", IDENTITIES)
@pytest.mark.parametrize("training", [True, False])
def test_an_identity_start_is_exact_and_learns_from_the_first_step(block, training):
    module = built(block).train(training)
    x = image()
    y = module(x)
    assert torch.equal(y, x)
    (y * image(seed=1)).sum().backward()
    assert any(part.grad.any() for part in module.parameters())


def test_every_block_with_an_init_option_shows_its_identity():
    with_init = {name for name in BLOCKS.names() if "init" in BLOCKS.load(name).__dataclass_fields__}
    shown = {name for name in with_init for block in BLOCKS.examples(name) if block.init == "identity"}
    assert with_init == {"cbam", "eca", "effective_se", "gather_excite", "scse", "se"}
    assert shown == with_init


def test_reading_every_block_does_not_import_timm():
    code = "import sys\nfrom sesurgery.blocks import BLOCKS\nfor n in BLOCKS.names(): BLOCKS.load(n)\n"
    code += "sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
