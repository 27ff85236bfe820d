"""Repositories of the Hugging Face hub for timm, read from a local cache in the hub's own layout."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import nn

from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint, sources
from sesurgery.spec import Spec

OWN = {"num_classes": 5, "layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}
ARGS = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
COMMIT = "0123456789abcdef0123456789abcdef01234567"

Publish = Callable[..., nn.Module]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which is not to be reached."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def published(cache: Path, name: str = "somebody/net", *, safe: bool = True, **args: object) -> nn.Module:
    """A network of timm that its own function saves as for the hub, in a cache as a download leaves it."""
    network = timm.create_model("resnet10t", **OWN)
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    save_for_hf(network, str(folder / "snapshots" / COMMIT), model_args={**ARGS, **args}, safe_serialization=safe)
    return network


def spec(name: str = "hf-hub:somebody/net", *, pretrained: bool = True, **kwargs: object) -> Spec:
    model = {"source": "timm", "name": name, "pretrained": pretrained, "kwargs": kwargs}
    surgery = [{"insert": "se", "at": "residual"}]
    return pipeline.load_spec(
        {"version": 1, "name": "x", "model": model, "input": {"shape": [3, 32, 32]}, "surgery": surgery}
    )


def test_a_repository_gives_its_network_with_its_values(cache):
    theirs = published(cache).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(sources.build(spec()).eval()(images), theirs(images))
    fresh = sources.build(spec(pretrained=False)).eval()
    assert fresh(images).shape == (2, 5)
    assert not torch.equal(fresh(images), theirs(images))


def test_other_classes_renew_the_head_and_every_other_key_is_checked(cache):
    theirs = published(cache)
    named = sources.build_named(spec(num_classes=3))
    assert str(named.head) == "the classifier (fc) is new: 3 classes, hf-hub:somebody/net has 5"
    assert torch.equal(named.module.conv1[0].weight, theirs.conv1[0].weight)
    assert named.module.num_classes == 3


def test_a_run_of_a_repository_is_replayed_from_its_config_alone(cache, tmp_path):
    published(cache)
    applied = pipeline.apply(spec(num_classes=3), pipeline.Workspace(tmp_path), "spec.yaml")
    (weights,) = cache.glob("models--*/snapshots/*/model.safetensors")
    weights.unlink()
    again = checkpoint.read(applied.folder, pipeline.catalogs()).network
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), applied.network.eval()(images))


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_a_pickle_of_a_repository_is_not_read(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    published(cache, safe=False)
    (weights,) = cache.glob("models--*/snapshots/*/pytorch_model.bin")
    weights.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(SesurgeryError, match="SE302") as caught:
        sources.build(spec())
    assert "model.safetensors of the repository are read" in str(caught.value)
    assert not Path("ran").exists()


def test_a_config_that_loads_other_files_is_refused(cache):
    published(cache, checkpoint_path="evil.pth")
    with pytest.raises(SesurgeryError, match="its config has 'checkpoint_path', by which other files are loaded"):
        sources.build(spec(pretrained=False))


def test_a_repository_that_is_not_at_hand_is_told_with_what_is_read(cache):
    with pytest.raises(SesurgeryError, match="cannot be built") as caught:
        sources.build(spec(pretrained=False))
    assert "config.json of the repository are read, from the hub or from its local cache" in str(caught.value)


def test_a_known_network_of_timm_says_that_its_head_is_new(cache):
    plain = timm.create_model("resnet10t")
    folder = cache / "models--timm--resnet10t.c3_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    save_for_hf(plain, str(folder / "snapshots" / COMMIT), safe_serialization=True)
    named = sources.build_named(spec("resnet10t", num_classes=3))
    assert str(named.head) == "the classifier (fc) is new: 3 classes, the pretrained network has 1000"
    assert torch.equal(named.module.conv1[0].weight, plain.conv1[0].weight)
    assert sources.build_named(spec("resnet10t")).head is None
