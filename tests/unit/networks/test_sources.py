"""Networks by name, and weights from a local file."""

from __future__ import annotations

import pickle
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sesurgery import pipeline, planner
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import sources
from sesurgery.networks.cifar_resnet import CifarResNet
from sesurgery.spec import Spec

CIFAR = {"source": "python", "name": "sesurgery.networks.cifar_resnet:CifarResNet", "kwargs": {"depth": 8}}


def spec(folder: Path, **model: object) -> Spec:
    """A spec in a file of that folder, so that relative paths and places in the file mean something."""
    text = f"""
        version: 1
        model: {model}
        input: {{shape: [3, 16, 16]}}
        surgery: [{{insert: se, at: residual}}]
        """
    path = folder / "spec.yaml"
    # Python's literals of plain data are YAML but for these.
    for python, yaml in (("True", "true"), ("False", "false"), ("None", "null")):
        text = text.replace(python, yaml)
    path.write_text(textwrap.dedent(text))
    return pipeline.load_spec(path)


@dataclass(frozen=True)
class Source:
    model: dict[str, Any]
    kind: str

    def __str__(self) -> str:
        return str(self.model["source"])


SOURCES = [
    Source({"source": "timm", "name": "resnet18", "kwargs": {"num_classes": 5}}, "timm.models.resnet.ResNet"),
    Source(
        {"source": "torchvision", "name": "resnet18", "kwargs": {"num_classes": 5}}, "torchvision.models.resnet.ResNet"
    ),
    Source(
        {**CIFAR, "kwargs": {"depth": 8, "num_classes": 5}},
        "sesurgery.networks.cifar_resnet.CifarResNet",
    ),
]


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_a_network_comes_from_its_source_with_its_keywords(source, tmp_path):
    network = sources.build(spec(tmp_path, **source.model))
    assert f"{type(network).__module__}.{type(network).__name__}" == source.kind
    assert network.fc.out_features == 5


def test_one_seed_gives_one_network(tmp_path):
    states = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(7)
            states.append(sources.build(spec(tmp_path, **CIFAR)).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_factory_beside_the_spec_is_found_and_the_path_is_put_back(tmp_path, monkeypatch):
    import sys

    (tmp_path / "factory_beside.py").write_text("from torch import nn\ndef make(): return nn.Conv2d(3, 4, 1)\n")
    before = list(sys.path)
    network = sources.build(spec(tmp_path, source="python", name="factory_beside:make"))
    assert isinstance(network, nn.Conv2d)
    assert sys.path == before


def test_a_factory_in_the_current_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "factory_current.py").write_text("from torch import nn\ndef make(): return nn.Conv2d(3, 4, 1)\n")
    elsewhere = tmp_path / "specs"
    elsewhere.mkdir()
    assert isinstance(sources.build(spec(elsewhere, source="python", name="factory_current:make")), nn.Conv2d)


def test_a_factory_that_returns_no_network_is_se302_at_its_name(tmp_path):
    with pytest.raises(SesurgeryError, match=r"spec\.yaml:3:.*SE302.*gave dict, not a torch\.nn\.Module"):
        sources.build(spec(tmp_path, source="python", name="builtins:dict"))


def test_an_onnx_file_cannot_be_changed_yet_and_it_is_said_so(tmp_path):
    with pytest.raises(SesurgeryError, match=r"SE302.*ONNX"):
        sources.build(spec(tmp_path, source="onnx", name="net.onnx"))


def trained() -> dict[str, torch.Tensor]:
    """A state dict that no fresh network has."""
    with torch.random.fork_rng():
        torch.manual_seed(99)
        network = CifarResNet(8)
        return {key: value + 1 for key, value in network.state_dict().items()}


@dataclass(frozen=True)
class File:
    name: str
    write: Callable[[dict[str, torch.Tensor], Path], None]

    def __str__(self) -> str:
        return self.name


FILES = [
    File("net.safetensors", save_file),
    File("net.pt", torch.save),
    File("wrapped.pth", lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path)),
    File("timm.pth", lambda state, path: torch.save({"model": state}, path)),
]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_local_weights_file_relative_to_the_spec_gives_its_values(file, tmp_path):
    state = trained()
    file.write(state, tmp_path / file.name)
    network = sources.build(spec(tmp_path, **CIFAR, checkpoint=file.name))
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_without_weights_a_weights_file_is_not_even_looked_for(tmp_path):
    sources.build(spec(tmp_path, **CIFAR, checkpoint="nowhere.safetensors"), weights=False)


def test_weights_that_were_saved_on_a_gpu_load_on_a_machine_without_one(tmp_path, monkeypatch):
    state = trained()
    with monkeypatch.context() as patched:
        patched.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(state, tmp_path / "gpu.pt")
    network = sources.build(spec(tmp_path, **CIFAR, checkpoint="gpu.pt"))
    assert {value.device.type for value in network.state_dict().values()} == {"cpu"}


class Code:
    """What a hostile file would hold: loading it by pickle runs it."""

    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Code, "ran", True)


def missing(state: dict[str, torch.Tensor], path: Path) -> None:
    del state["fc.bias"], state["layer1.0.conv1.weight"]
    save_file(state, path)


def reshaped(state: dict[str, torch.Tensor], path: Path) -> None:
    state["fc.weight"] = torch.zeros(10, 32)
    state["extra"] = torch.zeros(1)
    save_file(state, path)


@dataclass(frozen=True)
class Bad:
    name: str
    write: Callable[[dict[str, torch.Tensor], Path], object]
    message: str

    def __str__(self) -> str:
        return self.name


BAD = [
    Bad("absent.pt", lambda state, path: None, "is not there"),
    Bad("few.safetensors", missing, r"2 missing \(layer1\.0\.conv1\.weight, fc\.bias\)"),
    Bad("shape.safetensors", reshaped, r"1 unknown \(extra\); 1 of another shape \(fc\.weight\)"),
    Bad("list.pt", lambda state, path: torch.save([1, 2], path), "holds no state dict"),
    Bad("numbers.pt", lambda state, path: torch.save({"a": 1}, path), "holds no state dict"),
    Bad("text.safetensors", lambda state, path: path.write_text("not weights"), "is not a weights file"),
    Bad("text.pt", lambda state, path: path.write_text("not weights"), "is not a weights file"),
    Bad("module.pt", lambda state, path: torch.save(CifarResNet(8), path), "is not a weights file"),
    Bad("code.pt", lambda state, path: path.write_bytes(pickle.dumps(Code(), protocol=2)), "is not a weights file"),
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_a_weights_file_that_does_not_fit_is_se401_at_its_place_in_the_spec(bad, tmp_path):
    bad.write(trained(), tmp_path / bad.name)
    with pytest.raises(SesurgeryError, match=bad.message) as caught:
        sources.build(spec(tmp_path, **CIFAR, checkpoint=bad.name))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "SE401"
    assert diagnostic.span is not None
    assert diagnostic.span.text[diagnostic.span.column - 1 :].startswith(f"'{bad.name}'")
    assert diagnostic.hint
    assert not Code.ran


def with_drop_path(given: Spec, rate: float = 0.25) -> Spec:
    return given.with_({"train": {"drop_path": rate}})


def test_stochastic_depth_of_the_recipe_reaches_the_network_and_outlives_surgery(tmp_path: Path) -> None:
    given = with_drop_path(spec(tmp_path, source="timm", name="resnet18"))
    network = sources.build(given)
    surgeon = sources.surgeon_for(given)
    changed = surgeon.apply(network, planner.plan(given, surgeon.view(network)))
    rates = [module.drop_prob for module in changed.modules() if type(module).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.25)
    assert isinstance(sources.build(with_drop_path(spec(tmp_path, source="timm", name="resnet18"), 0.0)), nn.Module)


def test_keywords_of_the_model_go_before_the_stochastic_depth_of_the_recipe(tmp_path: Path) -> None:
    given = spec(tmp_path, source="timm", name="resnet18", kwargs={"drop_path_rate": 0.5})
    rates = [getattr(module, "drop_prob", 0) for module in sources.build(with_drop_path(given)).modules()]
    assert max(rates) == pytest.approx(0.5)


@pytest.mark.parametrize("model", [{"source": "torchvision", "name": "resnet18"}, CIFAR], ids=["torchvision", "python"])
def test_a_network_without_stochastic_depth_says_so(model: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SesurgeryError, match=r"spec\.yaml.*SE302[\s\S]*set `drop_path: 0` under `train:`"):
        sources.build(with_drop_path(spec(tmp_path, **model)))
