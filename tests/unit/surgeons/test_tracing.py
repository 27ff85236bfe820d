"""Tracing that does not give up."""

from __future__ import annotations

import contextlib
import copy
from typing import ClassVar

import pytest
import torch
from torch import nn

from sesurgery.diagnostics import SesurgeryError
from sesurgery.surgeons.base import Leaf
from sesurgery.surgeons.fx.inputs import image_inputs
from sesurgery.surgeons.fx.surgeon import FxSurgeon
from sesurgery.surgeons.fx.traced import Way
from sesurgery.surgeons.fx.tracing import trace, trace_call

SHAPE = (8, 6, 6)
CONTROL_FLOW = "symbolically traced variables cannot be used as inputs to control flow"


class Depends(nn.Module):
    """Its control flow depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if x.sum() > 0 else -self.conv(x)


class Outer(nn.Module):
    """An untraceable part deep inside, beside a residual unit that must still be found."""

    def __init__(self) -> None:
        super().__init__()
        self.wrapped = nn.ModuleDict({"deep": nn.Sequential(nn.ReLU(), Depends())})
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.wrapped["deep"](x)
        return x + self.conv(x)


def test_the_innermost_module_that_cannot_be_traced_becomes_a_leaf_and_says_why():
    assert trace(Outer(), SHAPE).leaves == (Leaf("wrapped.deep.1", CONTROL_FLOW),)


class InARow(nn.Module):
    """Many parts that cannot be traced; `traced`, one list for all copies, tells how often the forward ran."""

    traced: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Sequential(nn.ReLU(), Depends()) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.traced.append(1)
        for part in self.parts:
            x = part(x)
        return x


def test_all_parts_that_cannot_be_traced_are_found_in_one_attempt():
    network = InARow()
    network.traced.clear()
    assert [leaf.path for leaf in trace(network, SHAPE).leaves] == [f"parts.{number}.1" for number in range(6)]
    assert len(network.traced) == 2


def test_what_lies_around_a_leaf_is_still_seen():
    assert [str(node) for node in FxSurgeon(SHAPE).view(Outer())] == [
        "x = input() : 8x6x6",
        "wrapped_deep_0 = act(x) @wrapped.deep.0 : 8x6x6",
        "wrapped_deep_1 = other(wrapped_deep_0) @wrapped.deep.1 : 8x6x6",
        "conv = conv(wrapped_deep_1) [3x3 s1 p1 8->8] @conv : 8x6x6",
        "add = add(wrapped_deep_1, conv) : 8x6x6",
        "output = output(add) : 8x6x6",
    ]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_leaf_still_decides_by_its_data_after_surgery(sign, operate):
    model = Outer().eval()
    model.wrapped["deep"][0] = nn.Identity()
    changed = operate(model, SHAPE, insert={"block": "se", "reduction": 2, "init": "identity"})
    x = torch.full((1, *SHAPE), sign)
    assert torch.equal(changed(x), model(x))


def test_a_root_that_cannot_be_traced_is_se403_with_the_way_out():
    with pytest.raises(SesurgeryError, match=r"SE403.*Depends\.forward cannot be traced") as caught:
        trace(Depends(), SHAPE)
    assert caught.value.diagnostics[0].hint == "move what depends on the data into a module of its own"


class Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("always")


def test_what_a_forward_raises_is_told():
    with pytest.raises(SesurgeryError, match=r"SE403.*Raises\.forward cannot be traced: always"):
        trace(Raises(), SHAPE)


@pytest.mark.parametrize("network", [Outer, Raises])
def test_tracing_leaves_torch_as_it_was(network):
    before = dict(vars(nn.Module))
    with contextlib.suppress(SesurgeryError):
        trace(network(), SHAPE)
    assert dict(vars(nn.Module)) == before


def test_norms_and_activations_are_taken_whole():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.GELU())
    assert [node.op for node in trace(model, (3, 6, 6)).graph.nodes] == ["placeholder", *["call_module"] * 3, "output"]


class AsksItsSize(nn.Module):
    """It decides by the size of its input, and by its batch as `view` needs it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        if height != 6 or width * 2 < 5:
            raise ValueError("made for 6")
        y = self.conv(x).view(batch, channels, -1).view(batch, channels, height, width)
        return x + y if y.shape[1] == channels else y


def test_a_decision_on_the_inputs_size_is_taken_for_that_size_and_the_batch_stays_open(operate):
    model = AsksItsSize().eval()
    assert trace(model, SHAPE).leaves == ()
    changed = operate(model, SHAPE, insert={"block": "se", "reduction": 2, "init": "identity"})
    for batch in (1, 2, 5):
        x = torch.randn(batch, *SHAPE)
        assert torch.equal(changed(x), model(x))


def test_a_size_that_the_network_refuses_is_said_in_its_own_words():
    with pytest.raises(SesurgeryError, match="made for 6"):
        trace(AsksItsSize(), (8, 7, 6))


def test_a_decision_on_a_value_is_never_taken_by_its_size():
    assert trace(nn.Sequential(nn.Conv2d(8, 8, 1), Depends()), SHAPE).leaves == (Leaf("1", CONTROL_FLOW),)


class Switches(nn.Module):
    """A forward with switches beside the image, such as a mask for training that is None otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None = None, features: bool = False, scale: float = 2.0
    ) -> torch.Tensor:
        y = self.conv(x)
        if mask is not None:
            y = y * mask.view(1, 1, 6, 6)
        return y if features else x * scale + y


def test_a_switch_of_the_forward_keeps_its_default_and_a_number_stays_an_argument(operate):
    model = Switches().eval()
    changed = operate(model, SHAPE, insert={"block": "se", "reduction": 2, "init": "identity"})
    x = torch.randn(2, *SHAPE)
    assert torch.equal(changed(x), model(x))
    assert torch.equal(changed(x, scale=3.0), model(x, scale=3.0))
    assert not torch.equal(changed(x, scale=3.0), model(x))


class Remembers(nn.Module):
    """A part that keeps what it computed for the size it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("places", torch.zeros(1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.places.shape[0] != int(x.shape[2]):
            self.places = torch.arange(int(x.shape[2]), dtype=x.dtype)
        return x * self.places.view(1, 1, -1, 1)


class AsksAfterwards(nn.Module):
    """A question about sizes behind the part, which is answered by running the part without values."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Remembers()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.part(x)
        return x + self.conv(x) if x.shape[2] == 6 else x


def test_what_a_part_keeps_while_a_question_is_answered_does_not_stay_in_the_network(operate):
    model = AsksAfterwards().eval()
    assert trace(model, SHAPE).leaves == ()
    assert type(model.part.places) is torch.Tensor
    changed = operate(model, SHAPE, insert={"block": "se", "reduction": 2, "init": "identity"})
    x = torch.randn(2, *SHAPE)
    assert torch.equal(changed(x), model(x))


class Keeps(nn.Module):
    """Keeps what it computed, as a detector keeps its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.kept: list[object] = [0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = [x.mean()]
        self.last = x.shape
        return x + self.conv(x)


def test_what_was_traced_can_be_copied_though_its_forward_keeps_symbols():
    model = Keeps()
    traced = trace_call(model, image_inputs(model, SHAPE), Way())
    assert copy.deepcopy(traced.root).kept == [0]
    assert not hasattr(traced.root, "last")
