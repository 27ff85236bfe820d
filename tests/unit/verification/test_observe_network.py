"""Inner values of torch networks: every call of a module is seen, and nothing is left of having looked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sesurgery.verification.observe import observe, watched


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Identity(), nn.ReLU(), nn.Flatten())


def test_every_call_is_seen_with_what_went_in_and_what_came_out(network: nn.Module) -> None:
    batches = [torch.full((2, 1, 1, 1), value) for value in (-1.0, 3.0)]
    seen = observe(network, {"relu": "1"}, batches, lambda given, made: (given[0].sum().item(), made.sum().item()))
    assert seen == {"relu": [(-2.0, 0.0), (6.0, 6.0)]}


def test_no_hook_is_left_where_the_network_fails(network: nn.Module) -> None:
    with pytest.raises(TypeError), watched(network, {"relu": "1"}, lambda given, made: None):
        network(None)
    assert not network[1]._forward_hooks
