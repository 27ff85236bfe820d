"""A network that begins with another one's values, by key."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks.weights import take


class Two(nn.Module):
    """A stem, and parts that networks of a pair have or lack."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4))
        for name, part in parts.items():
            self.stem.add_module(name, part)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file(Two(old=nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4))).state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_what_both_have_is_taken_and_the_rest_is_named_by_its_module(saved: Path) -> None:
    network = Two(new=nn.Linear(4, 4))
    fresh = network.stem.new.weight.clone()
    taken = take(network, saved)
    assert (taken.count, taken.fresh, taken.left) == (7, ("stem.new",), ("stem.old",))
    assert str(taken) == "7 values taken; 1 fresh (stem.new); 1 left over (stem.old)"
    assert network.stem.new.weight.equal(fresh)
    torch.manual_seed(0)
    assert network.stem[0].weight.equal(Two(old=nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4))).stem[0].weight)


def test_a_value_of_another_shape_is_refused_and_nothing_is_taken(saved: Path) -> None:
    network = Two(old=nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4)))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(SesurgeryError, match=r"SE401.*3 of another shape.*\(2, 4\) there and \(3, 4\) here"):
        take(network, saved)
    assert all(value.equal(before[key]) for key, value in network.state_dict().items())


def test_weights_of_another_network_are_refused(saved: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"SE401.*no key is in both"):
        take(nn.Linear(2, 2), saved)
