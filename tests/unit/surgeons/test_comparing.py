"""A graph is compared with the forward that it replaces: on the same random numbers and the same buffers."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sesurgery
from sesurgery.diagnostics import SesurgeryError

EXAMPLE = torch.zeros(1, 8, 16, 16)
Own = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Unit(nn.Module):
    """A residual sum whose forward begins in a way of its own."""

    def __init__(self, own: Own) -> None:
        super().__init__()
        self.own = own
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.own(self, x)
        return x + self.norm(self.conv(x))


def plain(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x


def drops(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.dropout(x, training=module.training)


def shakes(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x * random.uniform(0.5, 1.0)


def shakes_by_numpy(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x * np.random.uniform(0.5, 1.0)


def counts(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    module.count.add_(1)
    return x * module.count


def counts_unseen(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    module.count.data.add_(1)
    return x * module.count


def lies(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x * 2 if repr(x).startswith("tensor") else x


def lies_and_drops(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return drops(module, lies(module, x))


@pytest.mark.parametrize("own", [drops, shakes, shakes_by_numpy])
def test_a_forward_that_draws_is_compared_on_the_same_draws(own: Own):
    model = nn.Sequential(Unit(own), Unit(plain), Unit(own))
    changed = sesurgery.insert(model, example_input=EXAMPLE, init="identity", expect=3)
    image = torch.randn(2, *EXAMPLE.shape[1:])
    for seed in (0, 1):
        given = []
        for network in (model, changed):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            given.append(network.train()(image))
        assert torch.equal(*given)


@pytest.mark.parametrize("own", [counts, counts_unseen, lies, lies_and_drops])
def test_what_a_graph_leaves_out_is_seen_whatever_else_the_forward_does(own: Own):
    with pytest.raises(SesurgeryError, match=r"Unit\.forward \(1\) is another function when traced") as caught:
        sesurgery.insert(nn.Sequential(Unit(plain), Unit(own), Unit(plain)), example_input=EXAMPLE, expect=3)
    assert [said.code for said in caught.value.diagnostics] == ["SE403"]


def lies_in_training(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.requires_grad and repr(x).startswith("tensor") else x


def cuts(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x.detach() if repr(x).startswith("tensor") else x


def passes_on(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x if repr(x).startswith("tensor") else x.detach()


@pytest.mark.parametrize(
    ("own", "how"),
    [
        (lies_in_training, "in training its output is off by"),
        (cuts, "in training its output passes a gradient to 'input 0'"),
        (passes_on, "in training its output passes no gradient to 'input 0'"),
    ],
)
def test_a_graph_that_differs_in_training_or_in_its_gradients_alone_is_refused(own: Own, how: str):
    with pytest.raises(SesurgeryError, match=r"Unit\.forward \(1\) is another function when traced") as caught:
        sesurgery.insert(nn.Sequential(Unit(plain), Unit(own), Unit(plain)), example_input=EXAMPLE, expect=3)
    assert how in str(caught.value)


class Frozen(nn.Module):
    """A convolution that learns, or whose values are taken without a gradient."""

    def __init__(self, *, seen: bool) -> None:
        super().__init__()
        self.conv, self.last, self.seen = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), seen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        if self.seen or repr(x).startswith("tensor"):
            out = out.detach()
        return x + self.last(out)


def test_a_parameter_that_learns_in_the_graph_alone_is_named():
    with pytest.raises(SesurgeryError, match=r"in training its output passes a gradient to 'conv\.bias'"):
        sesurgery.insert(Frozen(seen=False), example_input=EXAMPLE)


def test_what_a_forward_detaches_for_a_graph_to_see_stays_detached():
    changed = sesurgery.insert(nn.Sequential(Frozen(seen=True), Frozen(seen=True)), example_input=EXAMPLE).train()
    changed(torch.randn(2, *EXAMPLE.shape[1:])).sum().backward()
    assert [unit.conv.weight.grad for unit in changed] == [None, None]
    assert all(unit.last.weight.grad is not None for unit in changed)


class Checkpointed(nn.Module):
    """Runs its convolutions again in the backward pass, which autograd's graph does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.last(torch.relu(self.conv(x)))
        if repr(x).startswith("tensor"):
            out = Again.apply(out)
        return x + out


class Again(torch.autograd.Function):
    """A step with a backward of its own."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


def test_a_backward_of_its_own_is_no_difference_where_the_graph_does_not_tell():
    changed = sesurgery.insert(Checkpointed(), example_input=EXAMPLE, init="identity")
    assert hasattr(changed, "se")


class NoiseOfADevice(nn.Module):
    """Draws from a generator that is neither the CPU's nor Python's; its control flow makes it a leaf."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 1e9:
            return x
        return x * torch.rand((), generator=self.generator)


class Noisy(nn.Module):
    def __init__(self, noise: NoiseOfADevice) -> None:
        super().__init__()
        self.noise, self.conv = noise, nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.noise(self.conv(x))


def test_a_gpus_random_numbers_are_the_same_for_both(monkeypatch):
    # A generator stands in for a GPU's.
    device = torch.Generator().manual_seed(7)
    noise = NoiseOfADevice(device)
    monkeypatch.setattr(NoiseOfADevice, "__deepcopy__", lambda self, _: self, raising=False)
    with pytest.raises(SesurgeryError, match="another function"):
        sesurgery.insert(Noisy(noise), block="se", at="residual", example_input=EXAMPLE)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [device.get_state()])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: device.set_state(states[0]))
    changed = sesurgery.insert(Noisy(noise), block="se", at="residual", example_input=EXAMPLE)
    assert hasattr(changed, "se")
