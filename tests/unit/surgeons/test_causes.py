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
