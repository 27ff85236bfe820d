"""Weights files of other projects, in their own layouts, in networks that a spec makes: the outputs are theirs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from timm import create_model
from torch import Tensor, nn

import sesurgery
from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError, SpecError
from sesurgery.networks import sources
from sesurgery.networks.cifar_resnet import BasicBlock, CifarResNet

SE = {"block": "se", "reduction": 16}
ONE_UNIT = {"layers": [1, 1, 1, 1], "num_classes": 5}
CAFFE = {"source": "python", "name": "sesurgery.networks.caffe_resnet:resnet", "kwargs": ONE_UNIT}
CIFAR = {
    "source": "python",
    "name": "sesurgery.networks.cifar_resnet:CifarResNet",
    "kwargs": {"depth": 8, "num_classes": 5},
}


class TheirLayer(nn.Module):
    """The block of moskomule's senet.pytorch: linear layers without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 16
        first, last = nn.Linear(channels, hidden, bias=False), nn.Linear(hidden, channels, bias=False)
        self.fc = nn.Sequential(first, nn.ReLU(), last, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class TheirUnit(BasicBlock):
    """A residual unit as they write it: the block in the forward."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, stride, "B")
        self.se = TheirLayer(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.se(self.bn2(self.conv2(out))) + identity)


def theirs_for_cifar() -> nn.Module:
    network = CifarResNet(8, num_classes=5)
    for name, unit in (("layer1", (16, 16, 1)), ("layer2", (16, 32, 2)), ("layer3", (32, 64, 2))):
        setattr(network, name, nn.Sequential(TheirUnit(*unit)))
    return network


def trained(network: nn.Module) -> nn.Module:
    """In eval mode, with statistics and biases that are no longer those of a fresh network."""
    generator = torch.Generator().manual_seed(0)
    for key, value in network.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif key.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1, generator=generator)
    return network.eval()


def spec_of(file: Path, model: dict[str, object], keys: object, insert: object = SE, side: int = 32, **more: object):
    checkpoint = {"file": str(file), "keys": keys, **more}
    return pipeline.load_spec(
        {
            "version": 1,
            "model": {**model, "checkpoint": checkpoint},
            "input": {"shape": [3, side, side]},
            "surgery": [{"insert": insert, "at": "residual"}],
        }
    )


def difference(one: nn.Module, other: nn.Module, side: int = 32) -> float:
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        given = one(images)
        assert given.std() > 1e-3
        # Rounding is relative to the outputs, which may be large.
        return float((given - other.eval()(images)).abs().max() / max(1, given.abs().max()))


def without_gates(theirs: nn.Module) -> nn.Module:
    """Their network with its gates taken out."""
    removal = {"version": 1, "model": CIFAR, "input": {"shape": [3, 32, 32]}, "surgery": [{"remove": "se"}]}
    return sesurgery.apply(pipeline.load_spec(removal), theirs)


@pytest.fixture(scope="module")
def cadene(tmp_path_factory) -> tuple[nn.Module, Path]:
    """A network in Cadene's layout, which timm keeps, with one unit a stage, and its file."""
    network = trained(create_model("legacy_seresnet50", **ONE_UNIT))
    file = tmp_path_factory.mktemp("cadene") / "se_resnet.pth"
    torch.save(network.state_dict(), file)
    return network, file


def test_cadenes_file_gives_cadenes_outputs_and_its_gates_removed_our_plain_network(cadene):
    theirs, file = cadene
    assert {"layer0.conv1.weight", "layer1.0.se_module.fc1.bias", "last_linear.weight"} <= theirs.state_dict().keys()
    spec = spec_of(file, CAFFE, "cadene")
    assert difference(theirs, sesurgery.apply(spec)) <= 1e-5
    assert difference(without_gates(theirs), sources.build(spec)) <= 1e-5


@pytest.mark.slow
def test_the_stem_of_senet154_is_cadenes(tmp_path):
    theirs = trained(create_model("legacy_senet154", **ONE_UNIT))
    torch.save(theirs.state_dict(), tmp_path / "senet154.pth")
    model = {**CAFFE, "name": "sesurgery.networks.caffe_resnet:senet154"}
    assert difference(theirs, sesurgery.apply(spec_of(tmp_path / "senet154.pth", model, "cadene"))) <= 1e-5


def test_timms_network_with_blocks_fits_its_plain_one(tmp_path):
    theirs = trained(create_model("seresnet18", **ONE_UNIT))
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    model = {"source": "timm", "name": "resnet18", "kwargs": ONE_UNIT}
    spec = spec_of(tmp_path / "x.pth", model, "timm", {**SE, "divisor": 8})
    assert difference(theirs, sesurgery.apply(spec)) <= 1e-5
    assert difference(without_gates(theirs), sources.build(spec)) <= 1e-5


def test_moskomules_file_of_parallel_training_gives_its_outputs_also_from_a_run(tmp_path):
    theirs = trained(theirs_for_cifar())
    assert "layer3.0.se.fc.2.weight" in theirs.state_dict()
    state = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "checkpoint.pth")
    spec = spec_of(tmp_path / "checkpoint.pth", CIFAR, "moskomule", {**SE, "bias": False})
    new = pipeline.apply(spec, pipeline.Workspace(tmp_path), "spec.yaml")
    assert difference(theirs, new.network) <= 1e-5
    assert difference(without_gates(theirs), sources.build(spec)) <= 1e-5


def test_pytorchcvs_network_gives_its_outputs(tmp_path):
    provider = pytest.importorskip("pytorchcv.model_provider")
    theirs = trained(provider.get_model("seresnet20_cifar10"))
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    model = {"source": "python", "name": "sesurgery.networks.cifar_resnet:resnet20"}
    spec = spec_of(tmp_path / "x.pth", model, "pytorchcv")
    assert difference(theirs, sesurgery.apply(spec)) <= 1e-5
    assert difference(without_gates(theirs), sources.build(spec)) <= 1e-5


def test_pretrainedmodels_own_code_gives_the_same_outputs(tmp_path):
    found = importlib.util.find_spec("pretrainedmodels")
    if found is None or found.origin is None:
        pytest.skip("pretrainedmodels is not installed")
    # The file alone: importing the package asks for libraries of its data sets.
    source = importlib.util.spec_from_file_location("senet", Path(found.origin).parent / "models" / "senet.py")
    senet = importlib.util.module_from_spec(source)
    source.loader.exec_module(senet)
    options = {"groups": 1, "reduction": 16, "dropout_p": None, "inplanes": 64, "input_3x3": False}
    theirs = senet.SENet(
        senet.SEResNetBottleneck, [1, 1, 1, 1], **options, downsample_kernel_size=1, downsample_padding=0, num_classes=5
    )
    # Its pooling takes maps of 7 x 7 alone.
    theirs.avg_pool = nn.AdaptiveAvgPool2d(1)
    torch.save(trained(theirs).state_dict(), tmp_path / "x.pth")
    spec = spec_of(tmp_path / "x.pth", CAFFE, "cadene")
    assert difference(theirs, sesurgery.apply(spec)) <= 1e-5
    assert difference(without_gates(theirs), sources.build(spec)) <= 1e-5


@pytest.fixture
def moskomule(tmp_path) -> Path:
    torch.save(trained(theirs_for_cifar()).state_dict(), tmp_path / "x.pth")
    return tmp_path / "x.pth"


def test_files_from_before_pytorch_0_4_have_no_counts_of_batches(moskomule):
    state = torch.load(moskomule)
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, moskomule)
    loaded = sources.build(spec_of(moskomule, CIFAR, "moskomule", {**SE, "bias": False}))
    assert torch.equal(loaded.bn1.running_var, state["bn1.running_var"])


def test_what_is_excepted_keeps_its_fresh_values(moskomule):
    loaded = sources.build(spec_of(moskomule, CIFAR, "moskomule", **{"except": "fc.*"}))
    saved = torch.load(moskomule)
    assert not torch.equal(loaded.fc.weight, saved["fc.weight"])
    assert torch.equal(loaded.conv1.weight, saved["conv1.weight"])
    with pytest.raises(SesurgeryError, match=r"no key of the network matches 'head\.\*'"):
        sources.build(spec_of(moskomule, CIFAR, "moskomule", **{"except": ["fc.*", "head.*"]}))


def test_through_a_key_map_other_classes_renew_the_head_alone(moskomule):
    model = {**CIFAR, "kwargs": {"depth": 8, "num_classes": 7}}
    named = sources.build_named(spec_of(moskomule, model, "moskomule"))
    assert named.head is not None
    assert (named.head.layers, named.head.classes) == (("fc",), 7)
    assert torch.equal(named.module.conv1.weight, torch.load(moskomule)["conv1.weight"])


def test_a_block_of_other_options_is_told_with_its_place(moskomule):
    with pytest.raises(
        SesurgeryError, match=r"does not fit the block on layer1\.0: 2 missing \(fc1\.bias, fc2\.bias\)"
    ):
        sesurgery.apply(spec_of(moskomule, CIFAR, "moskomule"))


def test_blocks_that_no_rule_inserts_are_told(moskomule):
    spec = spec_of(moskomule, CIFAR, "moskomule", {**SE, "bias": False}).with_({"surgery[0].stages": [3]})
    with pytest.raises(SesurgeryError, match=r"2 blocks that no rule inserts \(layer1\.0, layer2\.0\)"):
        sesurgery.apply(spec)


def test_a_layout_of_ones_own_is_written_as_patterns(moskomule):
    keys = {
        "map": "renamed",
        "blocks": {r"(.*)\.se\.fc\.0\.(.*)": r"\1:fc1.\2", r"(.*)\.se\.fc\.2\.(.*)": r"\1:fc2.\2"},
    }
    sesurgery.apply(spec_of(moskomule, CIFAR, keys, {**SE, "bias": False}))
    with pytest.raises(SpecError, match="is not a regular expression"):
        spec_of(moskomule, CIFAR, {"map": "renamed", "names": {"(": "x"}})


def test_a_misspelt_key_map_gets_the_nearest(moskomule):
    with pytest.raises(SpecError, match=r"(?s)unknown key map 'cadenne'.*did you mean 'cadene'"):
        spec_of(moskomule, CIFAR, "cadenne")
