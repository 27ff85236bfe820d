"""Networks that no block can be put into are refused before anything is tried, with the way out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sesurgery
from sesurgery.diagnostics import SesurgeryError

EXAMPLE = torch.zeros(1, 3, 8, 8)


class Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


class Reversible(Unit):
    """Frees its activations and computes them again, by an operation of its own."""

    class Again(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            raise RuntimeError("the output was changed before it was reversed")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.Again.apply(x + self.conv(x))


class Detector(nn.Module):
    """Takes a list of images, as torchvision's detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(Unit(), nn.ReLU(), Unit())
        self.score = nn.Linear(3, 2)

    def forward(self, images: list[torch.Tensor]) -> list[torch.Tensor]:
        if not isinstance(images, list):
            raise TypeError("a list of images is expected")
        return [self.score(self.backbone(image[None]).mean((2, 3))) for image in images]


REFUSALS = {
    "scripted": (
        lambda: torch.jit.script(Unit()),
        "error[SE403]: RecursiveScriptModule is a scripted network: its forward is not Python any more\n"
        "  hint: insert the blocks first, then call torch.jit.script on the result",
    ),
    "compiled": (
        lambda: torch.compile(Unit()),
        "error[SE403]: OptimizedModule is a compiled network\n"
        "  hint: insert the blocks into the network that was compiled, `model._orig_mod`, and compile the result",
    ),
    "wrapped": (
        lambda: nn.DataParallel(Unit()),
        "error[SE403]: DataParallel only wraps a network\n"
        "  hint: insert the blocks into `model.module`, and wrap the result",
    ),
    "on the meta device": (
        lambda: Unit().to("meta"),
        "error[SE403]: the parameter 'conv.weight' is on the meta device: it has no values to keep\n"
        "  hint: give the network values first: `model.to_empty(device='cpu')`, then load them",
    ),
    "lazy": (
        lambda: nn.Sequential(nn.LazyConv2d(4, 1), Unit()),
        "error[SE403]: the parameter '0.weight' has no shape yet\n  hint: run the network once on an example first",
    ),
    "over three dimensions": (
        lambda: nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU()),
        "error[SE403]: Sequential convolves over three dimensions ('0'): maps are [N, C, T, H, W]\n"
        "  hint: give it clips: four sizes, channels, time, height and width",
    ),
    "a detector": (
        Detector,
        "error[SE304]: the network does not run on this input: a list of images is expected\n"
        "  hint: name a part of it as 'submodule': 'backbone' (2 sites at residual, 2 at conv)",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_says_what_is_in_the_way_and_what_to_do(name):
    make, said = REFUSALS[name]
    with pytest.raises(SesurgeryError) as caught:
        sesurgery.insert(make(), example_input=EXAMPLE)
    assert caught.value.render() == said


@pytest.mark.parametrize(
    ("example", "found"),
    [
        (torch.zeros(1, 3, 4, 8, 8), "must be an image batch [N, C, H, W], found [1, 3, 4, 8, 8]"),
        (torch.zeros(3, 8, 8), "must be an image batch [N, C, H, W], found [3, 8, 8]"),
        ({"x": torch.zeros(2, 3)}, "must hold an image batch [N, C, H, W], found [[2, 3]]"),
        ((1,), "must hold an image batch [N, C, H, W], found no tensor"),
    ],
    ids=["five dimensions", "no batch", "a vector", "no tensor"],
)
def test_an_example_without_an_image_batch_says_what_it_is(example, found):
    with pytest.raises(SesurgeryError) as caught:
        sesurgery.insert(Unit(), example_input=example)
    assert caught.value.render() == (
        f"error[SE304]: example_input {found}\n"
        "  hint: give what the model is called with: a batch of images, a tuple of arguments, "
        "or a mapping of named ones"
    )


def test_an_operation_with_a_gradient_of_its_own_is_named():
    with pytest.raises(SesurgeryError, match=r"SE403.*it calls Again, an operation with a gradient of its own"):
        sesurgery.insert(Reversible(), example_input=EXAMPLE)


def test_what_cannot_be_differentiated_behind_the_blocks_is_no_raw_error():
    class Behind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unit, self.last = Unit(), Reversible()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.unit(x))

    with pytest.raises(SesurgeryError, match=r"SE404.*cannot be differentiated: RuntimeError: the output was changed"):
        sesurgery.insert(Behind(), example_input=EXAMPLE)


def test_the_named_part_of_a_detector_works_by_the_whole_ones_example():
    model = Detector().eval()
    changed = sesurgery.insert(
        model, example_input=([torch.zeros(3, 8, 8)],), submodule="backbone", init="identity", expect=2
    )
    images = [torch.randn(3, 8, 8), torch.randn(3, 12, 9)]
    assert all(torch.equal(one, other) for one, other in zip(changed(images), model(images), strict=True))
