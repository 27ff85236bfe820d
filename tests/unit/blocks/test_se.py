"""Squeeze-and-Excitation against its equations, written once more in numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from sesurgery import pipeline
from sesurgery.blocks.se import SE
from sesurgery.diagnostics import SpecError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Width:
    block: SE
    channels: int
    hidden: int

    def __str__(self) -> str:
        options = {key: value for key, value in vars(self.block).items() if value != getattr(SE(), key)}
        return f"{self.channels} channels, {options or 'defaults'} -> {self.hidden}"


WIDTHS = [
    Width(SE(), 256, 16),
    Width(SE(), 64, 4),
    Width(SE(), 16, 1),
    Width(SE(), 8, 1),  # never zero
    Width(SE(), 40, 2),  # 2.5, rounded down
    Width(SE(reduction=4), 64, 16),
    Width(SE(reduction=1), 64, 64),
    Width(SE(reduction=2.5), 100, 40),
    Width(SE(min_width=8), 64, 8),
    Width(SE(min_width=8), 256, 16),
    Width(SE(divisor=8), 64, 8),  # 4, and one multiple at least
    Width(SE(divisor=8), 256, 16),
    Width(SE(divisor=8), 320, 24),  # 20 lies in the middle and goes up
    Width(SE(divisor=8), 304, 16),  # 19 goes down
    Width(SE(width=10), 64, 10),
    Width(SE(width=10), 2048, 10),
]


@pytest.mark.parametrize("case", WIDTHS, ids=str)
def test_the_hidden_width_follows_its_rule(case):
    assert case.block.hidden(case.channels) == case.hidden
    module = case.block.build(case.channels)
    assert (module.fc1.in_channels, module.fc1.out_channels) == (case.channels, case.hidden)
    assert (module.fc2.in_channels, module.fc2.out_channels) == (case.hidden, case.channels)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "silu": lambda x: x * sigmoid(x),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
}
GATES = {
    "sigmoid": sigmoid,
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
}


def by_hand(block: SE, module: nn.Module, x: Array) -> Array:
    """Equations 2 to 4 of the paper, for maps [N, C, H, W]."""
    state = {key: value.double().numpy() for key, value in module.state_dict().items()}
    hidden, channels = state["fc1.weight"].shape[0], state["fc2.weight"].shape[0]
    z = x.mean(axis=(2, 3)) if block.squeeze == "avg" else x.max(axis=(2, 3))
    z = z @ state["fc1.weight"].reshape(hidden, channels).T + state.get("fc1.bias", 0)
    z = ACTIVATIONS[block.activation](z)
    z = z @ state["fc2.weight"].reshape(channels, hidden).T + state.get("fc2.bias", 0)
    return x * GATES[block.gate](z)[:, :, None, None]


FORMS = [
    SE(reduction=4),
    SE(reduction=4, bias=False),
    SE(reduction=4, squeeze="max"),
    *(SE(reduction=4, activation=name) for name in ACTIVATIONS),
    *(SE(reduction=4, gate=name) for name in GATES),
]


@pytest.mark.parametrize("block", FORMS, ids=str)
def test_the_module_computes_the_equations(block):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = block.build(16).double()
        x = 3 * torch.randn(3, 16, 5, 7, dtype=torch.float64)
    assert np.abs(module(x).detach().numpy() - by_hand(block, module, x.numpy())).max() < 1e-12


def test_without_a_squeeze_every_pixel_is_gated_as_if_it_were_the_whole_map():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole, alone = SE(reduction=4).build(16), SE(reduction=4, squeeze="none").build(16)
        x = torch.randn(2, 16, 3, 2)
    alone.load_state_dict(whole.state_dict())
    expected = torch.stack([whole(x.flatten(2)[:, :, n : n + 1, None]).flatten(1) for n in range(6)], dim=2)
    torch.testing.assert_close(alone(x).flatten(2), expected)


@pytest.mark.parametrize("reduction", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("channels", [64, 256, 2048])
def test_a_block_has_two_c_squared_over_r_parameters_and_its_biases(channels, reduction):
    count = {
        bias: sum(part.numel() for part in SE(reduction=reduction, bias=bias).build(channels).parameters())
        for bias in (False, True)
    }
    assert count[False] == 2 * channels * channels // reduction
    assert count[True] == count[False] + channels // reduction + channels


def test_a_fresh_sigmoid_halves_its_branch_which_is_why_there_is_an_identity_start():
    x = torch.ones(1, 256, 4, 4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert SE().build(256)(x).mean().item() == pytest.approx(0.5, abs=0.05)


EXACT = [SE(init="identity", gate=gate) for gate in ("sigmoid", "hard_sigmoid", "tanh", "relu")]
EXACT += [SE(init="identity", bias=False), SE(init="identity", squeeze="max", activation="silu")]


@pytest.mark.parametrize("block", EXACT, ids=str)
def test_an_identity_start_is_the_identity_to_the_last_bit(block):
    x = 10 * torch.randn(4, 32, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block.build(32)(x), x)


@pytest.mark.parametrize("block", EXACT, ids=str)
def test_an_identity_start_has_left_the_identity_after_one_step(block):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = block.build(32)
        x, target = torch.randn(2, 4, 32, 6, 6)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for _ in range(2):
        losses.append(((module(x) - target) ** 2).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[1] < losses[0]
    assert not torch.equal(module(x), x)


def load(**options: object) -> object:
    return pipeline.load_spec(
        {
            "version": 1,
            "model": {"source": "timm", "name": "resnet18"},
            "input": {"shape": [3, 32, 32]},
            "surgery": [{"insert": {"block": "se", **options}, "at": "residual"}],
        }
    )


@pytest.mark.parametrize("other", [{"reduction": 8}, {"min_width": 8}, {"divisor": 8}], ids=str)
def test_a_width_goes_with_no_rule_for_the_width(other):
    with pytest.raises(SpecError, match="'width' is the hidden width itself"):
        load(width=10, **other)


@pytest.mark.parametrize("gate", ["relu", "tanh"])
def test_an_identity_start_of_a_gate_that_is_zero_at_zero_needs_a_bias(gate):
    with pytest.raises(SpecError, match=f"'init: identity' needs 'bias: true' with the gate {gate}"):
        load(init="identity", gate=gate, bias=False)


@pytest.mark.parametrize(("channels", "advised"), [(64, True), (112, True), (128, False), (256, False)])
def test_a_bottleneck_under_eight_is_advised_against(channels, advised):
    assert (SE().advice(channels) is not None) == advised


def test_the_advice_names_both_widths():
    assert SE().advice(16) == "the hidden width is 1 at 16 channels: a bottleneck under 8 carries little"
