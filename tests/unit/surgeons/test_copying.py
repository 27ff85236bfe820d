"""Twins of networks: other objects, the same parameters, however a module says that it is to be copied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sesurgery
from sesurgery.surgeons.fx.copying import twin


class Counting(nn.Module):
    """A residual unit that writes to its buffer and to itself as it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.register_buffer("runs", torch.zeros(1))
        self.last = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        self.last += 1
        return (x + self.conv(x).relu()).relu()


class WithState(Counting):
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "copied": True}


class WithReduce(Counting):
    def __reduce_ex__(self, protocol: Any) -> Any:
        return super().__reduce_ex__(protocol)


class WithCopy(Counting):
    def __deepcopy__(self, memo: dict[int, Any]) -> WithCopy:
        made = WithCopy()
        made.conv.weight = memo.get(id(self.conv.weight), self.conv.weight)
        made.conv.bias = memo.get(id(self.conv.bias), self.conv.bias)
        made.runs.copy_(self.runs)
        return made


@pytest.mark.parametrize("kind", [Counting, WithState, WithReduce, WithCopy])
def test_a_twin_shares_parameters_and_nothing_that_a_run_writes(kind: type[Counting]) -> None:
    network = kind()
    made: Any = twin(network)
    assert type(made) is kind
    assert all(one is other for one, other in zip(network.parameters(), made.parameters(), strict=True))
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(made(x), network.forward(x))
        made(x)
    assert (float(network.runs), network.last) == (1, 1)
    assert (float(made.runs), made.last) == (2, 2)


def test_a_module_that_is_copied_in_its_own_way_is_copied_so() -> None:
    assert vars(twin(WithState()))["copied"] is True
    assert "copied" not in vars(twin(Counting()))


@pytest.mark.parametrize("kind", [WithState, WithReduce])
def test_surgery_on_it_leaves_the_network_as_it_was(kind: type[Counting]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), kind()).eval()
    x = torch.randn(2, 3, 16, 16)
    changed = sesurgery.insert(network, example_input=x, at="residual", init="identity").eval()
    assert float(network[1].runs) == 0
    with torch.no_grad():
        assert torch.equal(changed(x), network(x))


class Collecting(nn.Module):
    """Its forward gathers maps in a list and writes to places of it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.one(x).relu()]
        maps.append(self.two(maps[-1]).relu())
        maps[1] = maps[1] + maps[0]
        maps[0] = maps[0] * 2
        return torch.cat(maps, 1)


def test_a_list_written_to_inside_a_forward_keeps_what_was_written() -> None:
    network = Collecting().eval()
    x = torch.randn(2, 3, 16, 16)
    changed = sesurgery.insert(network, example_input=x, at="residual", init="identity", expect=1).eval()
    with torch.no_grad():
        assert torch.equal(changed(x), network(x))
    assert [key for key in changed.state_dict() if key.startswith("se.")]
