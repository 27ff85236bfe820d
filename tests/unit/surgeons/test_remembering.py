"""A layer gives what it gave, on the same value and in the same modes alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sesurgery.surgeons.fx.remembering import Memory


@pytest.fixture
def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 4, 3)


def again(conv: nn.Conv2d, memory: Memory, value: Tensor) -> bool:
    """Whether a call is answered from the memory: the layer itself computes with other weights by now."""
    kept = conv.weight.detach().clone()
    with torch.no_grad():
        conv.weight.mul_(3)
    try:
        with memory.serving():
            served = conv(value)
    finally:
        with torch.no_grad():
            conv.weight.copy_(kept)
    return torch.allclose(served, nn.functional.conv2d(value, kept, conv.bias))


def test_a_call_on_the_same_value_is_not_computed_again(conv: nn.Conv2d) -> None:
    memory, value = Memory(), torch.randn(2, 3, 8, 8)
    with memory.of([conv]):
        assert not again(conv, memory, value)
        memory.learn(True)
        output = conv(value)
        assert again(conv, memory, value.clone())
        assert not again(conv, memory, value + 1)
        with torch.no_grad():
            assert not again(conv, memory, value)
        output.detach().mul_(2)
        assert not again(conv, memory, value)
        memory.learn(False)
        assert not again(conv, memory, value)
    assert "forward" not in vars(conv)


def test_what_is_given_may_be_written_to(conv: nn.Conv2d) -> None:
    memory, value = Memory(), torch.randn(2, 3, 8, 8)
    with memory.of([conv]):
        memory.learn(True)
        output = conv(value)
        before = output.detach().clone()
        with memory.serving():
            conv(value).mul_(2)
        assert torch.equal(output, before)


def test_layers_with_hooks_or_a_forward_of_their_own_are_left_alone(conv: nn.Conv2d) -> None:
    class Own(nn.Conv2d):
        pass

    conv.register_forward_hook(lambda *_: None)
    layers = [conv, Own(3, 4, 3), nn.BatchNorm2d(3)]
    with Memory().of(layers):
        assert not any("forward" in vars(layer) for layer in layers)
