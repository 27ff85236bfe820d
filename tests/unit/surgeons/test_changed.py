"""A changed network is copied and pickled as it stands: nothing of it is traced a second time."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import sesurgery
from sesurgery.networks.cifar_resnet import CifarResNet
from sesurgery.surgeons.fx.changed import Changed, code_of

SHAPE = (8, 6, 6)
NARROW = {"block": "se", "width": 2}


class Odd(nn.Module):
    """All that a second tracing would change or lose: modes, sums in place, decisions, ties, what no forward reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 8, 3, padding=1)
        self.last.weight = self.conv.weight
        self.drop = nn.Dropout(0.5)
        self.shift = torch.full((1, 8, 1, 1), 0.1)
        self.register_buffer("scratch", torch.ones(2), persistent=False)
        self.register_buffer("unread", torch.arange(3.0))
        self.auxiliary = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        if x.shape[-1] > 4:
            x = x + self.shift
        branch = F.dropout(self.conv(x), 0.5, training=self.training)
        total = branch
        # `branch` is the sum from here on.
        total += x
        return torch.cat([self.drop(self.last(branch)) + branch, x * scale], dim=1)[:, :10]


def pickled(network: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(network))


def saved(network: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(network, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    at: str = "residual"


CASES = [
    Case("odd", Odd, SHAPE),
    Case("cifar resnet", lambda: CifarResNet(8), (3, 16, 16)),
    Case("mobilenet", lambda: timm.create_model("mobilenetv2_035", num_classes=4, drop_path_rate=0.5), (3, 32, 32)),
    Case("stochastic depth", lambda: torchvision.models.efficientnet_b0(num_classes=4), (3, 32, 32), at="post"),
]
# Two graphs over the same modules, one for each mode.
INCEPTION = Case("inception", lambda: torchvision.models.inception_v3(init_weights=False), (3, 96, 96), at="concat")
each_way = pytest.mark.parametrize("through", [copy.deepcopy, pickled, saved])


def answer(network: nn.Module, shape: tuple[int, int, int]) -> torch.Tensor:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        return network(torch.randn(4, *shape))


@each_way
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_network_comes_back_as_it_was(case, through, operate):
    changed = operate(case.make(), case.shape, insert=NARROW, at=case.at)
    other = through(changed)
    assert type(other).__name__ == type(changed).__name__ == type(case.make()).__name__
    assert [*other.state_dict()] == [*changed.state_dict()]
    assert {id(part) for part in other.parameters()}.isdisjoint({id(part) for part in changed.parameters()})
    codes = [[code_of(part) for part in net.modules() if isinstance(part, Changed)] for net in (other, changed)]
    assert codes[0] == codes[1] != []
    for mode in (True, False, True):
        assert torch.equal(answer(other.train(mode), case.shape), answer(changed.train(mode), case.shape))
    assert not torch.equal(answer(other.train(), case.shape), answer(other.eval(), case.shape))


@each_way
def test_what_no_forward_reads_and_what_is_shared_comes_back(through, operate):
    other = through(operate(Odd(), SHAPE, insert=NARROW))
    assert other.last.weight is other.conv.weight
    assert [name for name, _ in other.auxiliary.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert torch.equal(other.unread, torch.arange(3.0))
    assert torch.equal(other.scratch, torch.ones(2))
    assert "scratch" not in other.state_dict()


@each_way
def test_a_network_of_two_graphs_keeps_one_set_of_modules(through, operate):
    changed = operate(INCEPTION.make(), INCEPTION.shape, insert="se", at="concat")
    other = through(changed)
    assert isinstance(other, torchvision.models.Inception3)
    assert [*other.state_dict()] == [*changed.state_dict()]
    with torch.no_grad():
        image = torch.randn(2, 3, 96, 96)
        assert torch.equal(other.eval()(image), changed.eval()(image))
        nn.init.zeros_(other.get_submodule("fc").weight)
        assert not torch.equal(other(image), changed(image))
        large = torch.randn(2, 3, 299, 299)
        assert type(other.train()(large)).__name__ == "InceptionOutputs"


@each_way
def test_a_network_that_was_read_back_takes_more_blocks(through, operate):
    changed = operate(CifarResNet(8), (3, 16, 16), insert=NARROW)
    twice = operate(through(changed), (3, 16, 16), insert=NARROW, at="post", name="late")
    assert {"se", "late"} <= {name for name, _ in twice.layer1[0].named_children()}


class Registered(nn.Module):
    """Calls operators of torch's registry, which pickle cannot name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.relu(torch.ops.aten.mul.Tensor(self.conv(x), 2.0)) + x


@each_way
def test_operators_of_torchs_registry_come_back(through, operate):
    changed = operate(Registered(), SHAPE, insert=NARROW)
    assert torch.equal(answer(through(changed), SHAPE), answer(changed, SHAPE))


def test_a_hook_stays_on_a_copy(operate):
    changed = operate(CifarResNet(8), (3, 16, 16), insert=NARROW)
    calls = []
    changed.register_forward_hook(lambda *_: calls.append(1))
    answer(copy.deepcopy(changed), (3, 16, 16))
    assert calls == [1]


@each_way
def test_a_weight_that_was_parametrised_is_no_hindrance(through, operate):
    """torch makes a class for such a module, which has no name to be pickled by."""
    model = CifarResNet(8)
    nn.utils.parametrizations.orthogonal(model.layer1[0].conv1)
    changed = operate(model, (3, 16, 16), insert=NARROW).eval()
    nn.utils.parametrize.remove_parametrizations(changed.get_submodule("layer1.0.conv1"), "weight")
    assert torch.equal(answer(through(changed), (3, 16, 16)), answer(changed, (3, 16, 16)))


@each_way
def test_what_is_exported_of_a_block_is_still_known_to_be_of_it(through, operate):
    changed = operate(CifarResNet(8), (3, 16, 16), insert=NARROW).eval()

    def owners(network: nn.Module) -> list[str]:
        program = torch.export.export(network, (torch.zeros(1, 3, 16, 16),))
        stacks = [node.meta["nn_module_stack"] for node in program.graph.nodes if node.op == "call_function"]
        return [[*stack.values()][-1][0] if stack else "" for stack in stacks]

    assert "layer1.0.se.fc1" in owners(changed)
    assert owners(through(changed)) == owners(changed)


class Walks(nn.Module):
    """As ChannelNet's units: a part called by any name, whose parts the forward walks through."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.add_module(name, nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)))
        self.called = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = x
        for part in getattr(self, self.called).children():
            made = part(made)
        return x + made


@pytest.mark.parametrize("name", ["blocks", "graphs", "original", "code", "unfusable", "read_while_tracing", "becomes"])
def test_a_network_may_call_its_parts_what_it_likes(name):
    torch.manual_seed(0)
    model, image = nn.Sequential(nn.Conv2d(3, 4, 1), Walks(name)), torch.randn(2, 3, 8, 8)
    changed = sesurgery.insert(model, at="residual", example_input=image, init="identity", min_width=2)
    again = pickle.loads(pickle.dumps(changed))
    assert torch.equal(changed(image), model(image))
    assert torch.equal(again(image), model(image))
    assert {*model.state_dict()} < {*changed.state_dict()}
    assert [*getattr(changed[1], name)] == [*changed[1].get_submodule(name)]
