"""Containers of a changed network: they are found, walked through and run as before."""

import copy

import pytest
import timm
import torch
from torch import nn

from sesurgery.diagnostics import SesurgeryError

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def original():
    return timm.create_model("resnet18", num_classes=10).eval()


@pytest.fixture
def changed(original, operate):
    return operate(original, SHAPE, insert={"block": "se", "init": "identity"})


def test_a_part_of_a_container_is_found_by_its_number(original, changed):
    assert isinstance(changed.layer2, nn.Sequential)
    assert len(changed.layer2) == len(original.layer2) == 2
    assert [*changed.layer2] == [changed.layer2[0], changed.layer2[1]]
    assert changed.layer2[0].conv1 is changed.get_submodule("layer2.0.conv1")
    assert torch.equal(changed.layer2[-1].bn2.weight, original.layer2[-1].bn2.weight)


def test_a_container_runs_alone_with_its_blocks(changed):
    calls = []
    hook = changed.layer2[0].se.register_forward_hook(lambda *_: calls.append(1))
    assert changed.layer2(torch.zeros(1, 64, 8, 8)).shape == (1, 128, 4, 4)
    hook.remove()
    assert calls == [1]


def test_a_copy_has_the_same_containers_keys_and_function(changed):
    other, image = copy.deepcopy(changed), torch.randn(2, *SHAPE)
    assert type(other.layer2) is nn.Sequential
    assert [*other.state_dict()] == [*changed.state_dict()]
    with torch.no_grad():
        assert torch.equal(other(image), changed(image))


def test_surgery_on_a_changed_network_keeps_its_containers(changed, operate):
    twice = operate(changed, SHAPE, insert="se", at="post", name="late")
    assert isinstance(twice.layer2, nn.Sequential)
    assert {"se", "late"} <= {name for name, _ in twice.layer2[0].named_children()}


def test_torch_export_takes_a_changed_network(changed):
    image = torch.randn(1, *SHAPE)
    with torch.no_grad():
        assert torch.allclose(torch.export.export(changed, (image,)).module()(image), changed(image), atol=1e-6)


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.named = nn.ModuleDict({"last": nn.Conv2d(3, 3, 1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            x = x + conv(x)
        return self.named["last"](x)


def test_lists_and_dictionaries_of_modules_stay_what_they_are(operate):
    changed = operate(Listed(), SHAPE, insert={"block": "se", "width": 2})
    assert type(changed.convs) is nn.ModuleList
    assert len(changed.convs) == 3
    assert [*changed.named.keys()] == ["last"]


def test_a_container_that_holds_a_block_walks_through_its_own_parts(operate):
    model = timm.create_model("resnet18", num_classes=10).eval()
    changed = operate(
        model, SHAPE, insert={"block": "se", "init": "identity"}, at={"placement": "module", "names": "layer2"}
    )
    assert isinstance(changed.layer2.se, nn.Module)
    assert len(changed.layer2) == 2
    assert [*changed.layer2] == [changed.layer2[0], changed.layer2[1]]
    assert [name for name, _ in changed.layer2.named_children()] == ["0", "1", "se"]
    for network in (changed, copy.deepcopy(changed)):
        image = torch.randn(2, *SHAPE)
        with torch.no_grad():
            assert torch.equal(network(image), model(image))
            assert len(network.layer2) == 2


class Walks(nn.Module):
    """As pytorchcv's Concurrent: its forward runs all parts that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.walk(x)

    def walk(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.children():
            x = part(x)
        return x


class Concurrent(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([part(x) for part in self._modules.values()], 1)


class Around(nn.Module):
    """Walks through the parts of another."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.body._modules.values():
            x = part(x)
        return x


class Net(nn.Module):
    def __init__(self, body: nn.Module, channels: int = 3) -> None:
        super().__init__()
        self.body, self.fc = body, nn.Conv2d(channels, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x).relu())


CONCURRENT = (nn.Conv2d(3, 3, 1), nn.Conv2d(3, 5, 3, padding=1))


@pytest.mark.parametrize(
    ("body", "channels", "at"),
    [
        (Walks(), 3, {"placement": "module", "names": "body"}),
        (Concurrent(*CONCURRENT), 8, {"placement": "module", "names": "body"}),
        (Concurrent(*CONCURRENT), 8, "concat"),
    ],
    ids=["children", "modules", "concat"],
)
def test_a_forward_that_walks_through_its_parts_does_not_run_the_block_among_them(body, channels, at, operate):
    changed = operate(Net(body, channels).eval(), SHAPE, insert={"block": "se", "width": 2}, at=at)
    assert type(changed.body).__name__ == type(body).__name__
    image = torch.randn(2, *SHAPE)
    for network in (changed, copy.deepcopy(changed)):
        with torch.no_grad():
            wanted = network.fc(network.body.se(body(image)).relu())
            assert torch.equal(network(image), wanted)
            assert torch.equal(network.train()(image), wanted)
        network.body.requires_grad_(False)
        assert not any(value.requires_grad for value in network.body.se.parameters())
        network.eval()


class Sets(Walks):
    """Looks at its parts elsewhere than in its forward."""

    def walk(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(self.one(x))

    def initialise(self) -> None:
        for part in self.children():
            nn.init.zeros_(part.bias)


def test_a_module_that_walks_through_its_parts_elsewhere_stays_of_its_class(operate):
    at = {"placement": "module", "names": "body"}
    changed = operate(Net(Sets()).eval(), SHAPE, insert={"block": "se", "width": 2}, at=at)
    assert type(changed.body) is Sets


def test_a_block_that_somebody_else_walks_through_is_refused(operate):
    network = Net(Around(Walks())).eval()
    with pytest.raises(SesurgeryError, match="the block runs 2 times and was put in to run 1: a forward that is"):
        operate(network, SHAPE, insert={"block": "se", "width": 2}, at={"placement": "module", "names": "body.body"})


class Asks(nn.Module):
    """A unit that would call a module of the block's name itself, if it had one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        if hasattr(self, "se"):
            out = self.se(out)
        return torch.relu(out + x)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (lambda: timm.create_model("resnet18", num_classes=4), (3, 64, 64)),
        (lambda: timm.create_model("res2net50_14w_8s", num_classes=4), (3, 64, 64)),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), Asks(), Asks()), (3, 16, 16)),
    ],
    ids=["resnet18", "res2net50", "hasattr"],
)
def test_a_block_behind_a_unit_whose_forward_asks_for_its_name_runs_once_and_behind_it(operate, network, shape):
    network, image = network().eval(), torch.randn(2, *shape)
    changed = operate(network, shape, insert={"block": "se", "width": 2}, at="post")
    blocks = {path.removesuffix(".se"): part for path, part in changed.named_modules() if path.endswith(".se")}
    assert len(blocks) >= 2
    for path, block in blocks.items():
        network.get_submodule(path).register_forward_hook(lambda _, __, out, block=block: block(out))
    with torch.no_grad():
        assert torch.equal(changed(image), network(image))


def test_blocks_in_a_unit_of_several_outputs_run_where_its_forward_asks_for_their_name(operate):
    network, image = timm.create_model("hrnet_w18_small", num_classes=4).eval(), torch.randn(2, 3, 64, 64)
    changed = operate(network, (3, 64, 64), insert={"block": "se", "width": 2}, at="post")
    blocks = [path for path, _ in changed.named_modules() if path.rpartition(".")[2].startswith("se")]
    assert len(blocks) == 23
    for path in blocks:
        changed.set_submodule(path, nn.Identity())
    with torch.no_grad():
        assert torch.equal(changed(image), network(image))
