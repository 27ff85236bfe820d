"""Modes of torch that a forward sets, or that surgery is called in; and hooks that a block inside would pass by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import sesurgery
from sesurgery.diagnostics import SesurgeryError
from sesurgery.surgeons.fx.surgeon import FxSurgeon

SHAPE = (3, 16, 16)
EXAMPLE = torch.zeros(1, *SHAPE)


class Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return x + self.b(x)


class ByInference(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            x = self.a(x)
        x = x.clone()
        return x + self.b(x)


class SwitchesAutocast(Unit):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.set_autocast_enabled("cpu", True)
        x = self.a(x)
        torch.set_autocast_enabled("cpu", False)
        x = x.float()
        return x + self.b(x)


class Around(nn.Module):
    """A unit behind a part of another kind."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.part(x)
        return x + self.conv(x)


KINDS = {
    ByInference: "a region of torch.inference_mode cannot be kept in a graph",
    SwitchesAutocast: "a switch of autocast without `with torch.autocast` cannot be kept in a graph",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_forward_with_a_mode_that_no_graph_keeps_is_refused_by_name(kind: type[Unit]) -> None:
    with pytest.raises(SesurgeryError) as caught:
        sesurgery.insert(kind(), example_input=EXAMPLE)
    (said,) = caught.value.diagnostics
    assert (said.code, said.message) == ("SE403", f"{kind.__name__}.forward cannot be traced: {KINDS[kind]}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_with_such_a_mode_is_called_as_it_is_and_named_with_what_lies_in_it(kind: type[Unit]) -> None:
    torch.manual_seed(0)
    model = Around(kind())
    (leaf,) = FxSurgeon(SHAPE).leaves(model)
    assert (leaf.path, leaf.why, leaf.hidden) == ("part", KINDS[kind], 2)
    changed = sesurgery.insert(model, example_input=EXAMPLE, init="identity")
    image = torch.randn(2, *SHAPE)
    assert torch.equal(changed(image), model(image))
    torch.clear_autocast_cache()


class Two(Unit):
    """Gives two maps, which are added outside it."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        x = self.a(x)
        return x, self.b(x)


class AddsThem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.two = Two()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut, branch = self.two(x)
        return shortcut + branch


@pytest.mark.parametrize("register", ["forward_hook", "forward_pre_hook", "full_backward_hook"])
def test_hooks_of_a_module_whose_block_is_read_outside_it_are_refused_by_name(register: str) -> None:
    model = AddsThem()
    assert [key for key in sesurgery.insert(model, example_input=EXAMPLE).state_dict() if "se.fc1" in key]
    getattr(model.two, f"register_{register}")(lambda *_: None)
    with pytest.raises(SesurgeryError, match=r"SE403.*'two' has hooks, and a block inside it is read outside it"):
        sesurgery.insert(model, example_input=EXAMPLE)


# --- surgery under autocast -------------------------------------------------------------------------------------------


def gradients(network: nn.Module, image: torch.Tensor) -> set[str]:
    """The parameters that get a gradient."""
    network(image).float().sum().backward()
    return {name for name, value in network.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("make", [Unit, lambda: Around(Unit())], ids=["unit", "around"])
def test_surgery_under_autocast_leaves_values_and_gradients_as_they_are(make: Callable[[], nn.Module]) -> None:
    """Autocast keeps casts of weights to the end of its region: none may be of a run on shapes alone."""
    torch.manual_seed(0)
    model: Any = make()
    image = torch.randn(2, *SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        changed = sesurgery.insert(model, example_input=EXAMPLE, init="identity")
        wanted, found = model(image), changed(image)
        assert type(wanted) is type(found) is torch.Tensor
        assert torch.equal(wanted, found)
        assert gradients(model, image) == {name for name, _ in model.named_parameters()}
        assert gradients(changed, image) == {name for name, _ in changed.named_parameters()}


def test_a_refused_network_gives_values_afterwards() -> None:
    model = SwitchesAutocast()
    with pytest.raises(SesurgeryError):
        sesurgery.insert(model, example_input=EXAMPLE)
    assert type(model(EXAMPLE)) is torch.Tensor
    torch.clear_autocast_cache()
