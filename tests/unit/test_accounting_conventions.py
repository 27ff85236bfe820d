"""Costs by module in two conventions, against published figures and against torch's own counter."""

import pytest
import timm
import torch
import torchvision
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

import sesurgery
from sesurgery.accounting import Cost, Row, account, cost
from sesurgery.blocks.se import SE
from sesurgery.networks.cifar_resnet import resnet56
from sesurgery.surgeons.fx.tracing import trace

CIFAR = (3, 32, 32)


@pytest.fixture(scope="module")
def se_resnet56():
    return sesurgery.insert(
        resnet56(), block="se", at="residual", example_input=torch.empty(1, *CIFAR), reduction=16, bias=False
    )


@pytest.fixture(scope="module")
def counted(se_resnet56):
    return account(se_resnet56, CIFAR, "fvcore")


@pytest.mark.parametrize(
    ("paths", "params", "flops", "activations"),
    [
        (("conv1", "bn1"), 464, 475_136, 16_384),
        (("layer1",), 42_336, 43_204_896, 295_065),
        (("layer2",), 164_160, 41_804_928, 155_954),
        (("layer3",), 654_208, 41_615_872, 78_436),
    ],
    ids=["stem", "layer1", "layer2", "layer3"],
)
def test_se_resnet56_costs_what_fvcore_says_part_by_part(counted, paths, params, flops, activations):
    found = counted.part(*paths)
    assert (found.params, found.macs, found.activations) == (params, flops, activations)


def test_se_resnet56_costs_what_fvcore_says_in_all(counted):
    assert counted.total == Row("", 861_818, 127_105_568, 545_849)


def test_the_parts_of_a_network_as_a_table(counted):
    assert counted.by_part().table().splitlines() == [
        "module   parameters  flops (fvcore)  activations",
        "conv1           432         442,368       16,384",
        "bn1              32          32,768            0",
        "layer1       42,336      43,204,896      295,065",
        "layer2      164,160      41,804,928      155,954",
        "layer3      654,208      41,615,872       78,436",
        "avgpool           0           4,096            0",
        "fc              650             640           10",
        "total       861,818     127,105,568      545,849",
    ]


def test_a_block_that_was_inserted_has_its_own_rows(counted):
    squeeze, first, second = (row for row in counted.rows if row.path.startswith("layer3.8.se"))
    assert squeeze == Row("layer3.8.se", 0, 64 * 8 * 8, 0)
    assert first == Row("layer3.8.se.fc1", 64 * 4, 64 * 4, 4)
    assert second == Row("layer3.8.se.fc2", 4 * 64, 4 * 64, 64)


def test_plain_data_names_its_convention(counted):
    given = counted.by_part().to_dict()
    assert given["convention"] == "fvcore"
    assert "norms" in given["counts"]
    assert given["total"] == {"params": 861_818, "macs": 127_105_568, "activations": 545_849}
    assert given["rows"][0] == {"path": "conv1", "params": 432, "macs": 442_368, "activations": 16_384}


def test_resnet50_is_4089_million_macs():
    assert cost(torchvision.models.resnet50(), (3, 224, 224)) == Cost(25_557_032, 4_089_184_256)


@pytest.mark.parametrize("name", ["seresnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224", "convnext_atto"])
def test_the_torch_convention_is_half_of_what_torch_counts(name):
    network = timm.create_model(name).eval()
    with torch.device("meta"):
        twin = timm.create_model(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(torch.empty(1, 3, 224, 224, device="meta"))
    assert cost(network, (3, 224, 224)) == Cost(
        sum(part.numel() for part in network.parameters()), counter.get_total_flops() // 2
    )


def flops(module, shape=(6, 4, 5)):
    return account(module, shape, "fvcore").total.macs


NUMEL = 6 * 4 * 5


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.BatchNorm2d(6), 2 * NUMEL),
        (nn.BatchNorm2d(6, affine=False), NUMEL),
        (nn.GroupNorm(2, 6), 5 * NUMEL),
        (nn.GroupNorm(2, 6, affine=False), 4 * NUMEL),
        (nn.LayerNorm(5), 5 * NUMEL),
        (nn.InstanceNorm2d(6, affine=True), 5 * NUMEL),
        (nn.InstanceNorm2d(6), 4 * NUMEL),
        (nn.AdaptiveAvgPool2d(1), NUMEL),
        (nn.AdaptiveAvgPool2d(2), NUMEL),
        (nn.Upsample(scale_factor=2), 4 * NUMEL),
        (nn.Upsample(scale_factor=2, mode="bilinear"), 16 * NUMEL),
        (nn.Conv2d(6, 8, 3), 6 * 8 * 9 * 2 * 3),
        (nn.ConvTranspose2d(6, 8, 2, stride=2), NUMEL * 8 * 4),
        (nn.Linear(5, 7), NUMEL * 7),
        (nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(1)), 0),
    ],
    ids=str,
)
def test_each_operation_counts_as_in_fvcore(module, expected):
    assert flops(module) == expected


class Mean(nn.Module):
    def __init__(self, dims):
        super().__init__()
        self.dims = dims

    def forward(self, x):
        return x.mean(self.dims, keepdim=True)


@pytest.mark.parametrize(("dims", "expected"), [((2, 3), NUMEL), ((-1, -2), NUMEL), (1, 0), (3, 0)])
def test_a_mean_over_height_and_width_counts_as_the_pool_that_it_is(dims, expected):
    assert flops(Mean(dims)) == expected


def test_se_costs_the_same_by_timms_module_and_by_ours():
    ours, theirs = SE(reduction=4).build(32), timm.layers.SEModule(32, rd_ratio=0.25)
    assert account(ours, (32, 7, 7), "fvcore").total == account(theirs, (32, 7, 7), "fvcore").total


@pytest.mark.parametrize("convention", ["torch", "fvcore"])
def test_a_traced_network_costs_what_it_did_module_by_module(convention):
    network = timm.create_model("seresnet18")
    traced = trace(network, (3, 64, 64))
    graph = fx.GraphModule(traced.root, traced.graph)
    assert account(graph, (3, 64, 64), convention).rows == account(network, (3, 64, 64), convention).rows


def test_a_shared_parameter_is_counted_once():
    shared = nn.Conv2d(6, 6, 1)
    twice = nn.Sequential(shared, nn.ReLU(), shared)
    assert account(twice, (6, 4, 5)).rows == (Row("0", 42, 2 * NUMEL * 6, 2 * NUMEL),)
    tied = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False))
    tied[1].weight = tied[0].weight
    assert [row.params for row in account(tied, (6, 4, 5)).rows] == [25, 0]


class LooksAtItsData(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 1)

    def forward(self, x):
        return self.conv(x) if x.sum().item() == 0 else x


def test_a_network_that_looks_at_its_data_is_run_on_zeros():
    assert account(LooksAtItsData(), (6, 4, 5)).rows == (Row("conv", 42, NUMEL * 6, NUMEL),)


def test_counting_leaves_the_network_as_it_was(se_resnet56):
    network = se_resnet56.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    account(network, CIFAR)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_half_precision_costs_the_same():
    network = nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6))
    assert account(network.half(), (6, 4, 5), "fvcore") == account(network.float(), (6, 4, 5), "fvcore")


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("runs", torch.zeros(1))

    def forward(self, x):
        self.runs += 1
        return x


def test_counting_costs_is_no_run():
    module = Counts()
    account(module, CIFAR)
    assert module.runs.item() == 0
