"""An open torch network: drawn once, for its plan and for what is made by it."""

from __future__ import annotations

import pytest
import torch
import torchvision
from fixtures.surgery import rules

from sesurgery.networks.cifar_resnet import resnet20
from sesurgery.networks.torch_network import TorchNetwork
from sesurgery.surgeons.fx import surgeon

INSERT = {"insert": {"block": "se", "init": "identity"}, "at": "residual"}
REMOVE = {"remove": "se"}


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every drawing that is made."""
    made, draw = [], surgeon.draw

    def noted(*given: object) -> object:
        made.append(draw(*given))
        return made[-1]

    monkeypatch.setattr(surgeon, "draw", noted)
    return made


def test_what_was_drawn_for_a_plan_is_what_it_is_carried_out_on(drawings: list[object]) -> None:
    network = TorchNetwork(resnet20().eval(), (3, 32, 32))
    plan = network.plan(rules(INSERT))
    torch.manual_seed(0)
    first = network.apply(plan)
    torch.manual_seed(0)
    second = network.apply(plan)
    assert len(drawings) == 1
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(first.module(image), network.module(image))
    one, other = first.module.state_dict(), second.module.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not {tensor.data_ptr() for tensor in one.values()} & {tensor.data_ptr() for tensor in other.values()}


def test_a_drawing_outlives_the_removal_of_gates(drawings: list[object]) -> None:
    model = torchvision.models.mobilenet_v3_small(num_classes=10).eval()
    network = TorchNetwork(model, (3, 64, 64))
    before = str(network.view)
    plan = network.plan(rules(REMOVE))
    assert plan.removals
    assert network.apply(plan).view.digest == network.apply(plan).view.digest
    assert str(network.view) == before
    assert network.plan(rules(REMOVE)).removals == plan.removals
    # For the plan, and each time that gates were removed, and for the views of what was left.
    assert len(drawings) == 5


def test_a_plan_for_other_leaves_has_a_drawing_of_its_own(drawings: list[object]) -> None:
    network = TorchNetwork(resnet20().eval(), (3, 32, 32))
    other = network.calling(("layer2.1",))
    plan = other.plan(rules(INSERT))
    assert "layer2.1" in plan.called
    changed = network.apply(plan)
    assert len(drawings) == 2
    assert not [key for key in changed.module.state_dict() if key.startswith("layer2.1.") and ".se." in key]
    assert any(key.startswith("layer2.2.se.") for key in changed.module.state_dict())
