"""A network that does not run on an input: each cause has the hint that fits it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sesurgery
from sesurgery.diagnostics import SesurgeryError


class Needs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) * scale


class Sized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2] != 32:
            raise ValueError(f"Input height ({x.shape[2]}) doesn't match model (32).")
        return x + self.conv(x)


CASES = {
    "channels": (nn.Conv2d(5, 4, 3), "give it images of 5 channels"),
    "too small for a kernel": (nn.Conv2d(3, 4, 9), "give it larger images"),
    "too small for a pool": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(7)), "give it larger images"),
    "another size": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 2)),
        "give it images of the size that it is made for",
    ),
    "another argument": (
        Needs(),
        "give all of its arguments, `sesurgery.insert(..., example_input=(image, ...))`, "
        "or name a part of it that takes an image alone as 'submodule'",
    ),
    "its own size": (Sized(), "give it images of the size that it is made for"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_cause_has_its_own_hint(name):
    network, hint = CASES[name]
    with pytest.raises(SesurgeryError) as caught:
        sesurgery.insert(network, at="conv", example_input=torch.zeros(1, 3, 8, 8))
    said = caught.value.diagnostics[0]
    assert said.code in ("SE304", "SE403")
    assert said.hint == hint


class Traced(nn.Module):
    """A residual unit whose forward does something that no graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)


class Infers(Traced):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            x = self.conv(x)
        return x + self.conv(x)


class Switches(Traced):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.set_autocast_enabled("cpu", True)
        try:
            return x + self.conv(x)
        finally:
            torch.set_autocast_enabled("cpu", False)


class Doubles(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


class OwnGradient(Traced):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + Doubles.apply(self.conv(x))


class Appends(Traced):
    def forward(self, values: list[torch.Tensor]) -> torch.Tensor:
        values.append(values[0] + self.conv(values[0]))
        return values[-1]


class LooksAtData(Traced):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if x.sum() > 0 else x


UNTRACEABLE = {
    "inference mode": (Infers(), "write `with torch.no_grad():` in its place, which a graph can keep"),
    "a switch of autocast": (Switches(), "write `with torch.autocast(...):` around what the switch is for"),
    "a gradient of its own": (
        OwnGradient(),
        "move the call of Doubles into a module of its own, which is then called as it is",
    ),
    "a changed list": (Appends(), "let it return a list of its own: `return [*values, new]`"),
    "data": (LooksAtData(), "move what depends on the data into a module of its own"),
}


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_what_no_graph_can_hold_has_its_own_hint(name):
    network, hint = UNTRACEABLE[name]
    image = torch.zeros(1, 3, 8, 8)
    example = ([image],) if name == "a changed list" else image
    with pytest.raises(SesurgeryError) as caught:
        sesurgery.insert(network, example_input=example)
    said = caught.value.diagnostics[0]
    assert said.code == "SE403"
    assert said.hint == hint


def test_the_hints_are_ways_that_work():
    class Keeps(Traced):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                x = self.conv(x)
            return x + self.conv(x)

    class Region(Traced):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu"):
                return x + self.conv(x)

    class Double(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Doubles.apply(x)

    class Moved(Traced):
        def __init__(self) -> None:
            super().__init__()
            self.last = Double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.last(self.conv(x))

    class Returns(Traced):
        def forward(self, values: list[torch.Tensor]) -> list[torch.Tensor]:
            return [*values, values[0] + self.conv(values[0])]

    image = torch.zeros(1, 3, 8, 8)
    for kind, example in ((Keeps, image), (Region, image), (Moved, image), (Returns, ([image],))):
        changed = sesurgery.insert(kind(), example_input=example)
        assert [name for name in changed.state_dict() if name.endswith("se.fc1.weight")], kind.__name__
