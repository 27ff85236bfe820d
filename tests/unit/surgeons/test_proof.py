"""The proof that every block runs, against the ways in which surgery by hand goes wrong unseen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from sesurgery.blocks.se import SE
from sesurgery.diagnostics import SesurgeryError
from sesurgery.surgeons.fx.inputs import image_inputs
from sesurgery.surgeons.fx.proof import prove

SHAPE = (8, 6, 6)


class Network(nn.Module):
    """A residual unit with a block, called in the way that the test says."""

    def __init__(self, call: Callable[[Any, torch.Tensor], torch.Tensor], block: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.se = block or SE(reduction=2).build(8)
        self.fc = nn.Linear(8, 4)
        self.call = call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc((x + self.call(self, self.conv(x))).mean((2, 3)))


class Does(nn.Module):
    """A block of one parameter that does what the test says."""

    def __init__(self, does: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.does = does

    def forward(self, x: torch.Tensor) -> Any:
        return self.does(x, self.weight)


def called(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.se(x)


def executed_and_dropped(net: Any, x: torch.Tensor) -> torch.Tensor:
    net.se(x)
    return x


@dataclass(frozen=True)
class Wrong:
    name: str
    network: Callable[[], nn.Module]
    code: str
    message: str


WRONG = [
    Wrong("declared and never executed", lambda: Network(lambda net, x: x), "SE404", "the block is never executed"),
    Wrong(
        "executed, its output dropped",
        lambda: Network(executed_and_dropped),
        "SE404",
        "the block's output does not reach the network's output",
    ),
    Wrong(
        "its output multiplied by zero",
        lambda: Network(lambda net, x: net.se(x) * 0),
        "SE404",
        "the block's output does not reach the network's output",
    ),
    Wrong(
        "cut off from the gradient",
        lambda: Network(lambda net, x: net.se(x).detach()),
        "SE404",
        "the block's output does not reach the network's output",
    ),
    Wrong(
        "a forward without a return",
        lambda: Network(called, Does(lambda x, weight: None)),
        "SE305",
        "the block returns NoneType, not a tensor",
    ),
    Wrong(
        "another shape, which what follows would take by broadcasting",
        lambda: Network(called, Does(lambda x, weight: (x * weight).mean((2, 3), keepdim=True))),
        "SE305",
        "the block changes the shape (1, 8, 6, 6) to (1, 8, 1, 1)",
    ),
    Wrong(
        "another shape, at which what follows fails",
        lambda: Network(called, Does(lambda x, weight: x[:, :3] * weight)),
        "SE305",
        "the block changes the shape (1, 8, 6, 6) to (1, 3, 6, 6)",
    ),
    Wrong(
        "parameters that never learn",
        lambda: Network(called, Does(lambda x, weight: x * weight.detach())),
        "SE404",
        "no parameter of the block receives a gradient",
    ),
    Wrong(
        "not a number",
        lambda: Network(called, Does(lambda x, weight: x * weight / 0)),
        "SE404",
        "the block's output or its gradient is not finite",
    ),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_what_does_not_run_is_caught_and_named(wrong):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = wrong.network()
    with pytest.raises(SesurgeryError) as caught:
        prove(network, {"se/unit[0]": "se"}, image_inputs(network, SHAPE).two)
    assert [(item.code, item.message) for item in caught.value.diagnostics] == [
        (wrong.code, f"se/unit[0]: {wrong.message}")
    ]
    assert caught.value.diagnostics[0].hint


RIGHT = {
    "a fresh block": SE(reduction=2),
    "an identity start, whose last projection is zero": SE(reduction=2, init="identity"),
    "a bottleneck of one": SE(width=1),
    "a ReLU gate": SE(reduction=2, gate="relu"),
}


@pytest.mark.parametrize("block", RIGHT.values(), ids=RIGHT.keys())
@pytest.mark.parametrize("seed", range(5))
def test_what_runs_is_proved_whatever_its_values(block, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(called, block.build(8))
    prove(network, {"se/unit[0]": "se"}, image_inputs(network, SHAPE).two)


def test_a_last_norm_that_starts_at_zero_hides_nothing():
    network = Network(lambda net, x: net.bn(net.se(x)))
    network.bn = nn.BatchNorm2d(8)
    nn.init.zeros_(network.bn.weight)
    prove(network, {"se/unit[0]": "se"}, image_inputs(network, SHAPE).two)


def test_every_block_that_does_not_run_is_named_at_once():
    network = Network(lambda net, x: x)
    network.other = SE(reduction=2).build(8)
    with pytest.raises(SesurgeryError) as caught:
        prove(network, {"a": "se", "b": "other"}, image_inputs(network, SHAPE).two)
    assert [item.message for item in caught.value.diagnostics] == [
        "a: the block is never executed",
        "b: the block is never executed",
    ]


def test_the_proof_leaves_no_trace_on_the_network(untouched):
    network = Network(called).train()
    before = untouched(network)
    prove(network, {"se/unit[0]": "se"}, image_inputs(network, SHAPE).two)
    assert untouched(network) == before


def test_an_error_that_is_not_the_blocks_is_not_blamed_on_it():
    network = Network(called)
    network.fc = nn.Linear(5, 4)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        prove(network, {"se/unit[0]": "se"}, image_inputs(network, SHAPE).two)


class Strided(nn.Module):
    """Down to one pixel on a small image, from which its own mean leaves nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 16, stride=16)
        self.se = SE(reduction=2).build(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.se(self.down(x))
        return (y - y.mean((2, 3), keepdim=True)) ** 2


def test_what_only_a_small_image_hides_is_no_fault():
    prove(Strided(), {"se/unit[0]": "se"}, image_inputs(Strided(), (3, 96, 96)).two)
    with pytest.raises(SesurgeryError, match="does not reach the network's output"):
        prove(Strided(), {"se/unit[0]": "se"}, image_inputs(Strided(), (3, 16, 16)).two)
