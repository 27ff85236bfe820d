"""What surgery changes in a network, and everything that it must leave alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks.cifar_resnet import CifarResNet
from sesurgery.surgeons.fx.surgeon import FxSurgeon

SHAPE = (8, 6, 6)
IDENTITY = {"block": "se", "reduction": 2, "init": "identity"}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Unit(nn.Module):
    """x + norm(convolution of x)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.bn(self.conv(x))


class Odd(nn.Module):
    """What a GraphModule loses: heads and buffers that no forward reads, ties, frozen parameters, constants."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("unread", torch.arange(3.0))
        self.register_buffer("scratch", torch.ones(2), persistent=False)
        self.scale = nn.Parameter(torch.full((1, 8, 1, 1), 0.5))
        self.mean = torch.full((1, 8, 1, 1), 0.1)
        self.first = Unit()
        self.second = Unit()
        self.second.conv.weight = self.first.conv.weight
        self.second.bn.weight.requires_grad_(False)
        self.auxiliary = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
        self.fc = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.mean) * self.scale + torch.ones(1, 8, 1, 1)
        return self.fc(self.second(self.first(x)).mean((2, 3)))


@dataclass(frozen=True)
class Network:
    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, int, int]


NETWORKS = [
    Network("cifar resnet", lambda: CifarResNet(8), (3, 16, 16)),
    Network("timm resnet18", lambda: timm.create_model("resnet18", num_classes=4), (3, 64, 64)),
    Network("timm mobilenetv2", lambda: timm.create_model("mobilenetv2_035", num_classes=4), (3, 64, 64)),
    Network("odd", Odd, SHAPE),
]
each_network = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)


@each_network
def test_every_key_survives_in_its_order_and_only_the_blocks_keys_are_new(network, operate):
    model = network.make()
    keys = list(operate(model, network.shape).state_dict())
    old = list(model.state_dict())
    assert [key for key in keys if key in old] == old
    new = [key for key in keys if key not in old]
    assert new
    assert all(key.split(".")[-3] == "se" for key in new)


@each_network
def test_every_value_survives(network, operate):
    model = network.make()
    changed = operate(model, network.shape).state_dict()
    assert all(torch.equal(changed[key], value) for key, value in model.state_dict().items())


@each_network
def test_the_network_that_was_given_is_untouched(network, operate, untouched):
    model = network.make()
    before = untouched(model)
    operate(model, network.shape)
    assert untouched(model) == before


@each_network
def test_parameters_keep_the_order_that_optimiser_states_count_on(network, operate):
    model = network.make()
    old = [name for name, _ in model.named_parameters()]
    assert [name for name, _ in operate(model, network.shape).named_parameters() if name in old] == old


@each_network
def test_an_identity_start_changes_no_output_bit(network, operate):
    model = network.make().eval()
    changed = operate(model, network.shape, insert=IDENTITY)
    x = noise(3, *network.shape)
    assert torch.equal(changed(x), model(x))


def test_the_keys_of_a_changed_unit_read_as_if_it_had_been_written_so(operate):
    changed = operate(CifarResNet(8), (3, 16, 16))
    assert [key for key in changed.state_dict() if key.startswith("layer1.0.")] == [
        *("layer1.0.conv1.weight",),
        *(f"layer1.0.bn1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
        *("layer1.0.conv2.weight",),
        *(f"layer1.0.bn2.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
        *("layer1.0.se.fc1.weight", "layer1.0.se.fc1.bias", "layer1.0.se.fc2.weight", "layer1.0.se.fc2.bias"),
    ]


def test_the_block_scales_the_branch_and_not_the_shortcut(operate):
    model = CifarResNet(8).eval()
    changed = operate(model, (3, 16, 16))
    seen = {}
    changed.get_submodule("layer2.0.se").register_forward_hook(
        lambda module, inputs, output: seen.update(into=inputs[0])
    )
    branch, shortcut = model.layer2[0].bn2, model.layer2[0].downsample
    branch.register_forward_hook(lambda module, inputs, output: seen.update(branch=output))
    shortcut.register_forward_hook(lambda module, inputs, output: seen.update(shortcut=output))
    x = noise(2, 3, 16, 16)
    # The unit before has its own block: make that one the identity, so that both networks feed this unit the same.
    first = changed.get_submodule("layer1.0.se.fc2")
    nn.init.zeros_(first.weight)
    nn.init.constant_(first.bias, 100.0)
    changed(x)
    model(x)
    assert torch.allclose(seen["into"], seen["branch"], atol=1e-5)
    assert not torch.allclose(seen["into"], seen["shortcut"], atol=1e-1)


def test_the_hidden_width_follows_from_the_width_at_the_site(operate):
    changed = operate(
        timm.create_model("resnet26", num_classes=4), (3, 64, 64), insert={"block": "se", "reduction": 16}
    )
    widths = {
        path: (se.fc1.in_channels, se.fc1.out_channels) for path, se in changed.named_modules() if path[-2:] == "se"
    }
    assert widths == {
        **{f"layer1.{unit}.se": (256, 16) for unit in (0, 1)},
        **{f"layer2.{unit}.se": (512, 32) for unit in (0, 1)},
        **{f"layer3.{unit}.se": (1024, 64) for unit in (0, 1)},
        **{f"layer4.{unit}.se": (2048, 128) for unit in (0, 1)},
    }


class InPlace(nn.Module):
    """A sum written `out += x`, after which the branch's name means the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        out += x
        return self.head(F.relu(out, inplace=True))


def test_a_sum_in_place_reads_the_scaled_value_and_later_readers_read_the_sum(operate):
    model = InPlace()
    changed = operate(model, SHAPE)
    x = noise(2, *SHAPE)
    expected = model.head(F.relu(changed.se(model.conv(x)) + x))
    assert torch.equal(changed(x), expected)


class Probed(nn.Module):
    """A branch that is read by the sum and by a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        branch = self.conv(x)
        return branch + x, self.head(branch)


def test_another_reader_of_the_branch_keeps_the_unscaled_value(operate):
    model = Probed()
    changed = operate(model, SHAPE)
    x = noise(2, *SHAPE)
    total, head = changed(x)
    assert torch.equal(head, model(x)[1])
    assert torch.equal(total, changed.se(model.conv(x)) + x)


class Twice(nn.Module):
    """One unit that runs twice: two sites, one set of weights beneath them."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = Unit()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.unit(self.unit(x))


def test_a_module_that_runs_twice_gets_a_block_for_each_time(operate):
    changed = operate(Twice(), SHAPE)
    assert [name for name, _ in changed.unit.named_children()] == ["conv", "bn", "se", "se_1"]
    assert changed.unit.se.fc1.weight is not changed.unit.se_1.fc1.weight


def test_tied_weights_stay_tied_and_frozen_ones_frozen(operate):
    changed = operate(Odd(), SHAPE)
    assert changed.second.conv.weight is changed.first.conv.weight
    assert [name for name, value in changed.named_parameters() if not value.requires_grad] == ["second.bn.weight"]


def test_heads_and_buffers_that_no_forward_reads_survive(operate):
    changed = operate(Odd(), SHAPE)
    assert [name for name, _ in changed.auxiliary.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert torch.equal(changed.unread, torch.arange(3.0))


def test_a_buffer_out_of_the_state_dict_stays_out_of_it(operate):
    changed = operate(Odd(), SHAPE)
    assert torch.equal(changed.scratch, torch.ones(2))
    assert "scratch" not in changed.state_dict()


def test_constants_of_a_forward_become_no_keys(operate):
    assert [key for key in operate(Odd(), SHAPE).state_dict() if "." not in key] == ["scale", "unread"]


def test_a_checkpoint_from_before_the_surgery_loads_into_the_changed_network(operate):
    other = CifarResNet(8)
    changed = operate(CifarResNet(8), (3, 16, 16), insert=IDENTITY).eval()
    report = changed.load_state_dict(other.state_dict(), strict=False)
    assert report.unexpected_keys == []
    assert {key.split(".")[-3] for key in report.missing_keys} == {"se"}
    x = noise(2, 3, 16, 16)
    assert torch.equal(changed(x), other.eval()(x))


def test_blocks_take_the_dtype_of_the_network(operate):
    changed = operate(Unit().double().eval(), SHAPE)
    assert {value.dtype for value in changed.se.parameters()} == {torch.float64}
    assert changed(noise(1, *SHAPE).double()).dtype == torch.float64


def test_a_norm_that_was_frozen_in_eval_mode_stays_frozen(operate):
    model = Unit().train()
    model.bn.eval()
    changed = operate(model, SHAPE)
    assert (changed.training, changed.conv.training, changed.bn.training, changed.se.training) == (
        True,
        True,
        False,
        True,
    )


def test_a_none_where_a_block_could_be_gives_its_place_up(operate):
    model = Unit()
    model.se = None
    assert [name for name, _ in operate(model, SHAPE).named_children()] == ["conv", "bn", "se"]


class Weighed(Unit):
    """Its forward reads a plain attribute of the name that a block would take."""

    def __init__(self) -> None:
        super().__init__()
        self.se = torch.full((1, 8, 1, 1), 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * self.se)


class Gated(Unit):
    """It has a block of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.se = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.bn(self.conv(x) * self.se(x))


class Placeholder(Unit):
    """It has an identity where a block could be, before the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.se = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.bn(self.se(self.conv(x)))


def test_an_identity_where_a_block_could_be_gives_its_place_up_and_is_no_longer_called(operate):
    model = Placeholder().eval()
    changed = operate(model, SHAPE)
    x = noise(2, *SHAPE)
    assert torch.equal(changed(x), x + changed.se(model.bn(model.conv(x))))


class Ends(nn.Module):
    """The identity is what the site's value comes from."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.se = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.se(self.conv(x))


def test_an_identity_that_the_plan_names_is_not_cleared_away(operate):
    with pytest.raises(SesurgeryError, match=r"SE405.*'0\.se'"):
        operate(nn.Sequential(Ends(), nn.ReLU()), SHAPE, at={"placement": "module", "names": "0"})


class Method(Unit):
    def se(self) -> None:
        return None


@pytest.mark.parametrize("taken", [Gated, Weighed, Method])
def test_a_name_that_is_taken_is_se405_and_says_what_to_do(taken, operate):
    with pytest.raises(
        SesurgeryError, match=r"SE405.*se/\[0\]: the network already has something called 'se'"
    ) as caught:
        operate(taken(), SHAPE, name="se")
    assert caught.value.diagnostics[0].hint == "give the rule another 'name'"
    assert operate(taken(), SHAPE, name="attention").attention.fc1.in_channels == 8


def test_two_rules_that_would_share_a_name_in_one_module_are_se405(operate):
    with pytest.raises(SesurgeryError, match=r"SE405.*se_1/unit\[0\]: .*'unit\.se_1'"):
        operate(Twice(), SHAPE, {}, {"name": "se_1", "at": "post"})


def test_a_plan_for_another_network_is_se403(plan):
    surgeon = FxSurgeon((3, 16, 16))
    foreign = plan(CifarResNet(14), (3, 16, 16))
    with pytest.raises(SesurgeryError, match=r"SE403.*the plan was made for another network than this one"):
        surgeon.apply(CifarResNet(8), foreign)


CHANGES = {
    "another convolution": lambda model: setattr(model.layer1[0], "conv1", nn.Conv2d(16, 16, 5, padding=2)),
    "another stride": lambda model: setattr(model.layer2[0].conv1, "stride", (1, 1)),
    "a module less": lambda model: setattr(model, "layer3", nn.Sequential(*model.layer3[:-1])),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_network_that_was_changed_after_it_was_planned_is_refused(change, plan):
    model, surgeon = CifarResNet(14), FxSurgeon((3, 16, 16))
    made = plan(model, (3, 16, 16))
    surgeon.apply(model, made)
    change(model)
    with pytest.raises(SesurgeryError, match=r"SE403|SE304"):
        surgeon.apply(model, made)


def test_weights_by_path_become_the_blocks_values(plan):
    model = Unit()
    made = plan(model, SHAPE, insert={"block": "se", "reduction": 4, "bias": False})
    weights = {
        "se.fc1.weight": np.arange(16, dtype=np.float32).reshape(2, 8, 1, 1),
        "se.fc2.weight": np.arange(16, dtype=np.float32).reshape(8, 2, 1, 1),
    }
    changed = FxSurgeon(SHAPE).apply(model, made, weights)
    assert {key: value.tolist() for key, value in changed.state_dict().items() if key in weights} == {
        key: value.tolist() for key, value in weights.items()
    }


def bad_at_width_32(channels: int) -> nn.Module:
    if channels == 32:
        raise ValueError("no block of 32 channels")
    return nn.InstanceNorm2d(channels, affine=True)


def silent(channels: int) -> nn.Module:
    class Silent(nn.Module):
        def forward(self, x: torch.Tensor) -> None:
            x * 2

    return Silent()


@dataclass(frozen=True)
class Failure:
    name: str
    insert: object
    code: str


FAILURES = [
    Failure("a block that cannot be built at a later site", f"{__name__}:bad_at_width_32", "SE305"),
    Failure("a block whose forward has no return", f"{__name__}:silent", "SE305"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_surgery_that_fails_leaves_nothing_half_done(failure, operate, untouched):
    model = CifarResNet(8).eval()
    x = noise(2, 3, 16, 16)
    before, answers = untouched(model), model(x)
    with pytest.raises(SesurgeryError, match=failure.code):
        operate(model, (3, 16, 16), insert={"block": "python", "factory": failure.insert})
    assert untouched(model) == before
    assert torch.equal(model(x), answers)


def test_weights_that_do_not_fit_are_se401_for_every_site_and_change_nothing(plan, untouched):
    model = CifarResNet(8)
    made = plan(model, (3, 16, 16))
    before = untouched(model)
    good = copy.deepcopy(FxSurgeon((3, 16, 16)).apply(model, made)).state_dict()
    weights = {key: value.numpy() for key, value in good.items() if not key.startswith(("layer2.0.se", "layer3.0.se"))}
    with pytest.raises(SesurgeryError) as caught:
        FxSurgeon((3, 16, 16)).apply(model, made, weights)
    assert [(item.code, item.message.partition(":")[0]) for item in caught.value.diagnostics] == [
        ("SE401", "se/layer2.0[0]"),
        ("SE401", "se/layer3.0[0]"),
    ]
    assert untouched(model) == before


class Counts(nn.Module):
    """It counts its runs, in its own forward and in a part that is taken as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.register_buffer("runs", torch.zeros(1))
        self.register_buffer("replaced", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        self.replaced = self.replaced + 1
        return x + self.norm(self.conv(x))


def test_looking_and_operating_count_no_runs(operate):
    model = Counts()
    changed = operate(model, (3, 16, 16), insert={"block": "se", "width": 2})
    assert [*map(float, (model.runs, model.replaced))] == [0, 0]
    assert [*map(float, (changed.runs, changed.replaced))] == [0, 0]
