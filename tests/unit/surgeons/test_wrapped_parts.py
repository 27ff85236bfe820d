"""Parts of a network that are scripted, traced, compiled or wrapped go on as they are, and the rest is changed."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import sesurgery
from sesurgery.networks.torch_network import TorchNetwork

EXAMPLE = torch.zeros(1, 3, 16, 16)


def layers() -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())


class Around(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.stem, self.part, self.conv = nn.Conv2d(3, 8, 1), part, nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.part(self.stem(x))
        return x + self.conv(x)


SCRIPTED = {
    "scripted": lambda: torch.jit.script(layers()),
    "traced": lambda: torch.jit.trace(layers().eval(), torch.zeros(1, 8, 4, 4)),
    "scripted, deeper": lambda: nn.Sequential(nn.Identity(), torch.jit.script(layers())),
}
SEEN_THROUGH = {
    "compiled": lambda: torch.compile(layers(), backend="eager"),
    "parallel": lambda: nn.DataParallel(layers()),
}


@pytest.mark.parametrize("at", ["residual", "conv"])
@pytest.mark.parametrize("kind", [*SCRIPTED, *SEEN_THROUGH])
def test_a_network_with_such_a_part_keeps_its_function_and_keys_and_learns(kind, at):
    torch.manual_seed(0)
    model = Around({**SCRIPTED, **SEEN_THROUGH}[kind]())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        changed = sesurgery.insert(model, at=at, example_input=EXAMPLE, init="identity", min_width=4)
    keys = list(model.state_dict())
    assert [key for key in changed.state_dict() if key in keys] == keys
    images = torch.randn(2, 3, 16, 16)
    for training in (False, True):
        assert torch.equal(changed.train(training)(images), model.train(training)(images))
    changed(images).square().sum().backward()
    learning = [name for name, value in changed.named_parameters() if name not in keys and value.grad is not None]
    assert [name for name, _ in changed.named_parameters() if name not in keys] == learning != []


@pytest.mark.parametrize("kind", SCRIPTED)
def test_a_scripted_part_is_called_as_it_is_and_that_is_said(kind):
    where = "part.1" if "deeper" in kind else "part"
    with pytest.warns(UserWarning, match="not seen: 1 convolution") as said:
        changed = sesurgery.insert(Around(SCRIPTED[kind]()), at="conv", example_input=EXAMPLE)
    assert [str(warning.message) for warning in said if warning.category is UserWarning] == [
        f"not seen: 1 convolution in 1 part that cannot be traced ({where}: it is scripted: its forward is not Python "
        "any more)"
    ]
    assert isinstance(changed.get_submodule(where), torch.jit.ScriptModule)
    assert not [name for name in changed.state_dict() if name.startswith("part") and ".se." in name]


def test_a_compiled_part_has_sites_and_a_parallel_one_too():
    for make in SEEN_THROUGH.values():
        changed = sesurgery.insert(Around(make()), at="conv", example_input=EXAMPLE, expect=3)
        assert [name for name in changed.state_dict() if name.startswith("part.") and ".se." in name]


def test_what_a_scripted_part_costs_is_counted():
    plain, scripted = (TorchNetwork(Around(part), (3, 16, 16)).cost for part in (layers(), torch.jit.script(layers())))
    assert (scripted.params, scripted.macs) == (plain.params, plain.macs)
