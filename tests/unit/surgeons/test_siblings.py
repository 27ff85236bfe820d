"""Modules with equal graphs are traced once; whatever could make two graphs differ makes them be traced each."""

from __future__ import annotations

import types
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sesurgery.surgeons.fx import operations

SHAPE = (4, 8, 8)


class Unit(nn.Module):
    """A residual unit whose forward asks for what it was made with."""

    def __init__(self, **given: object) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(4, 4, 3, padding=1), torch.relu
        self.scale, self.deep, self.slopes = 1.0, False, (0.5, 2)
        for name, value in given.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.conv(x))
        for slope in self.slopes:
            out = out * slope
        out = self.conv(out) if self.deep else out
        return x + out * self.scale


class Flagged(Unit):
    """A unit that decides by a buffer."""

    def __init__(self, flag: bool) -> None:
        super().__init__()
        self.register_buffer("flag", torch.tensor(flag))

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        return x + (out if self.flag else -out)


class Strided(Unit):
    """A unit that asks a part for its padding."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 2 * padding + 1, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) * self.conv.padding[0]


class Sized(Unit):
    """A unit that does other things with other sizes."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) * (2.0 if x.shape[2] > 4 else 3.0)


class Called(nn.Module):
    """Calls two units with other switches."""

    class Switched(Unit):
        def forward(self, x: Tensor, twice: bool = False) -> Tensor:
            out = self.conv(x)
            return x + (2 * out if twice else out)

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Called.Switched(), Called.Switched()

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x), twice=True)


def own_forward() -> nn.Module:
    unit = Unit()
    unit.forward = types.MethodType(lambda self, x: x + 3 * self.conv(x), unit)
    return unit


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """The classes of the modules that are traced to be operated on."""
    found: list[type] = []
    trace = operations.trace_call

    def counted(model: nn.Module, *args: object) -> object:
        found.append(type(model))
        return trace(model, *args)

    monkeypatch.setattr(operations, "trace_call", counted)
    return found


def exact(operate: Callable[..., nn.Module], network: nn.Module) -> nn.Module:
    """The network with blocks that start as the identity, after it was seen to be the same function in both modes."""
    insert = {"block": "se", "width": 2, "init": "identity"}
    for mode in (False, True):
        changed = operate(network.train(mode), SHAPE, insert=insert, at="residual")
        image = torch.randn(2, *SHAPE)
        with torch.no_grad():
            assert torch.allclose(changed(image), network(image), atol=1e-6)
    return changed


def test_units_that_are_alike_are_traced_once(operate, traced):
    network = nn.Sequential(Unit(), Unit(), Unit(deep=True), Unit(deep=True), Unit())
    changed = exact(operate, network)
    assert traced == 2 * [Unit, Unit]
    assert [type(unit.se) for unit in changed] == 5 * [type(changed[0].se)]


def test_each_unit_has_a_graph_of_its_own(operate):
    changed = exact(operate, nn.Sequential(Unit(), Unit()))
    first, second = (unit.sesurgery_graphs[0] for unit in changed)
    assert first is not second
    assert {node.graph for node in second.nodes} == {second}


@pytest.mark.parametrize(
    "units",
    [
        lambda: (Unit(scale=1.0), Unit(scale=2.0)),
        lambda: (Unit(scale=1), Unit(scale=True)),
        lambda: (Unit(act=torch.relu), Unit(act=torch.tanh)),
        lambda: (Unit(slopes=(0.5, 2)), Unit(slopes=[0.5, 2])),
        lambda: (Unit(slopes=(0.5, 2)), Unit(slopes=(2, 2))),
        lambda: (Flagged(True), Flagged(False)),
        lambda: (Strided(1), Strided(2)),
        lambda: (Sized(), nn.AvgPool2d(2), Sized()),
        lambda: (Unit(), own_forward()),
        lambda: (Called(),),
    ],
    ids=["number", "1 and True", "function", "list", "tuple", "buffer", "part", "size", "own forward", "switch"],
)
def test_units_that_may_differ_are_traced_each(operate, traced, units):
    network = nn.Sequential(*units())
    exact(operate, network)
    assert len(traced) >= 4
    assert len(traced) % 2 == 0


def test_a_graph_that_is_taken_for_another_modules_is_compared_with_its_forward(operate, monkeypatch):
    """Should two modules be taken for alike that are not, the comparison finds it."""
    from sesurgery.surgeons.base import Unfaithful

    monkeypatch.setattr(operations.siblings, "likeness", lambda *_: "alike")
    with pytest.raises(Unfaithful, match="another function when traced"):
        exact(operate, nn.Sequential(Unit(), Unit(deep=True, scale=3.0)))
