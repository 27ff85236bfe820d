"""Checkpoints as training scripts write them: their wrappers and prefixes, other classes, keys that are too many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint, sources
from sesurgery.networks.cifar_resnet import CifarResNet
from sesurgery.networks.heads import new_head
from sesurgery.spec import Spec

NAME = "sesurgery.networks.cifar_resnet:CifarResNet"
WRAPPERS = (
    *("state_dict", "model", "model_state", "model_state_dict", "module"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return CifarResNet(8)


def spec(file: Path, classes: int = 10, **checkpoint: object) -> Spec:
    kwargs = {"depth": 8, "num_classes": classes}
    model = {"source": "python", "name": NAME, "kwargs": kwargs, "checkpoint": {"file": str(file), **checkpoint}}
    surgery = [{"insert": {"block": "se", "reduction": 4}, "at": "residual"}]
    return pipeline.load_spec(
        {"version": 1, "name": "tiny", "model": model, "input": {"shape": [3, 16, 16]}, "surgery": surgery}
    )


def has_values_of(loaded: nn.Module, network: nn.Module, *, but: str = "-") -> bool:
    own = network.state_dict()
    return all(torch.equal(value, own[key]) for key, value in loaded.state_dict().items() if not key.startswith(but))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", [*WRAPPERS, ""])
def test_a_state_dict_is_found_under_its_wrapper_and_prefix(wrapper, prefix, network, tmp_path):
    state = {f"{prefix}{key}": value for key, value in network.state_dict().items()}
    torch.save({"epoch": 3, "optimizer": {"state": {}}, wrapper: state} if wrapper else state, tmp_path / "x.pth")
    assert has_values_of(sources.build(spec(tmp_path / "x.pth")), network)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_safetensors_backbone_loads_with_a_new_head(prefix, network, tmp_path):
    save_file({f"{prefix}{key}": value for key, value in network.state_dict().items()}, tmp_path / "x.safetensors")
    assert has_values_of(sources.build(spec(tmp_path / "x.safetensors")), network)
    assert has_values_of(sources.build(spec(tmp_path / "x.safetensors", 7)), network, but="fc.")


def test_the_average_that_torch_keeps_loads_without_its_count(network, tmp_path):
    # As torchvision's reference scripts save it, beside the weights of the last step.
    torch.save({"model_ema": AveragedModel(network).state_dict()}, tmp_path / "x.pth")
    assert "n_averaged" in torch.load(tmp_path / "x.pth")["model_ema"]
    assert has_values_of(sources.build(spec(tmp_path / "x.pth")), network)


def test_of_several_the_weights_themselves_are_taken(network, tmp_path):
    average = {key: torch.zeros_like(value) for key, value in network.state_dict().items()}
    torch.save({"state_dict_ema": average, "state_dict": network.state_dict()}, tmp_path / "x.pth")
    assert has_values_of(sources.build(spec(tmp_path / "x.pth")), network)


def test_keys_that_are_too_many_are_named_and_left_out_only_if_the_spec_ignores_them(network, tmp_path):
    extra = {"projector.weight": torch.zeros(3), "projector.bias": torch.zeros(3)}
    torch.save({**network.state_dict(), **extra}, tmp_path / "x.pth")
    with pytest.raises(SesurgeryError, match=r"2 unknown \(projector.weight, projector.bias\)") as caught:
        sources.build(spec(tmp_path / "x.pth"))
    assert "`ignore:` leaves keys of the file out" in str(caught.value)
    assert has_values_of(sources.build(spec(tmp_path / "x.pth", ignore="projector.*")), network)
    with pytest.raises(SesurgeryError, match=r"no key of x\.pth matches 'proj_'"):
        sources.build(spec(tmp_path / "x.pth", ignore=["projector.*", "proj_"]))


def test_a_new_head_is_said_by_plan_and_written_into_the_run(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "x.pth")
    file = (tmp_path / "x.pth").as_posix()
    applied = pipeline.apply(spec(tmp_path / "x.pth", 7), pipeline.Workspace(tmp_path), "spec.yaml")
    assert applied.planned.notes == (f"the classifier (fc) is new: 7 classes, {file} has 10",)
    assert applied.planned.to_dict()["notes"] == [*applied.planned.notes]
    run = checkpoint.read(applied.folder, pipeline.catalogs())
    assert run.manifest.details.new_head == ("fc",)
    assert run.network.fc.out_features == 7
    assert pipeline.plan(spec(tmp_path / "x.pth")).notes == ()


def conv(**changes: int) -> nn.Module:
    sizes = {"width": 4, "hidden": 6, "classes": 3, "kernel": 3} | changes
    return nn.Sequential(
        nn.Conv2d(3, sizes["width"], sizes["kernel"], padding=1),
        nn.Linear(sizes["width"], sizes["hidden"]),
        nn.Linear(sizes["hidden"], sizes["classes"]),
    )


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({"classes": 5}, ("2",)),
        ({"hidden": 7}, None),
        ({"width": 5}, None),
        ({"kernel": 5}, None),
        ({"classes": 5, "kernel": 5}, None),
        ({}, None),
    ],
    ids=str,
)
def test_only_another_number_of_classes_is_a_new_head(changes, layers):
    head = new_head(conv(), conv(**changes).state_dict(), "x")
    assert (head and head.layers) == layers


def test_auxiliary_outputs_are_parts_of_the_head():
    def with_auxiliary(classes: int) -> nn.Module:
        return nn.ModuleDict({"aux": nn.Linear(4, classes), "fc": nn.Linear(6, classes)})

    head = new_head(with_auxiliary(3), with_auxiliary(5).state_dict(), "x")
    assert head is not None
    assert head.layers == ("aux", "fc")
    other = nn.ModuleDict({"aux": nn.Linear(4, 5), "fc": nn.Linear(6, 6)})
    assert new_head(with_auxiliary(3), other.state_dict(), "x") is None


@pytest.fixture
def torch_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, nn.Module], None]:
    """Writes the file that torchvision would have downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def write(url: str, network: nn.Module) -> None:
        folder = tmp_path / "torch" / "hub" / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), folder / url.rpartition("/")[2])

    return write


def of_source(source: str, name: str, **kwargs: object) -> Spec:
    model = {"source": source, "name": name, "pretrained": True, "kwargs": kwargs}
    return pipeline.load_spec(
        {"version": 1, "model": model, "input": {"shape": [3, 32, 32]}, "surgery": [{"insert": "se", "at": "residual"}]}
    )


def test_pretrained_networks_of_torchvision_get_a_new_head(torch_cache):
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    plain = squeezenet1_1()
    torch_cache(SqueezeNet1_1_Weights.DEFAULT.url, plain)
    assert has_values_of(sources.build(of_source("torchvision", "squeezenet1_1")), plain)
    named = sources.build_named(of_source("torchvision", "squeezenet1_1", num_classes=7))
    assert str(named.head) == "the classifier (classifier.1) is new: 7 classes, the pretrained network has 1000"
    assert has_values_of(named.module, plain, but="classifier.1.")
    assert named.module.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_pretrained_detectors_of_other_classes_are_refused_with_the_way_out(torch_cache):
    from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights, ssdlite320_mobilenet_v3_large

    name = "ssdlite320_mobilenet_v3_large"
    plain = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    torch_cache(SSDLite320_MobileNet_V3_Large_Weights.DEFAULT.url, plain)
    with pytest.raises(SesurgeryError, match="of 91 classes, in more than its last layer") as caught:
        sources.build(of_source("torchvision", name, num_classes=7))
    assert "leave 'num_classes' or 'pretrained' out" in str(caught.value)
