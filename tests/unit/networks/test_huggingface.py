"""Networks of transformers: by class, by folder, and what their configs cannot do."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file

import sesurgery
from sesurgery import pipeline
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import checkpoint, sources
from sesurgery.networks.export import export
from sesurgery.spec.export import Export

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TINY = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic", "num_labels": 5}
RESNET = "ResNetForImageClassification"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def spec(folder, name=RESNET, kwargs=TINY, **model):
    path = folder / "spec.yaml"
    given = {
        "version": 1,
        "model": {"source": "huggingface", "name": name, "kwargs": kwargs, **model},
        "input": {"shape": [3, 32, 32]},
        "surgery": [{"insert": {"block": "se", "init": "identity", "reduction": 4}, "at": "residual"}],
    }
    path.write_text(json.dumps(given))
    return pipeline.load_spec(path)


@pytest.fixture
def saved(tmp_path):
    """A folder as `save_pretrained` leaves it."""
    network = transformers.ResNetForImageClassification(transformers.ResNetConfig(**TINY))
    network.save_pretrained(tmp_path / "net")
    return network.eval()


def refused(code, *parts, build):
    with pytest.raises(SesurgeryError) as caught:
        build()
    text = str(caught.value)
    assert caught.value.diagnostics[0].code == code
    for part in parts:
        assert part in text
    assert caught.value.diagnostics[0].span is not None


def test_a_class_is_built_from_its_config_and_gives_logits_or_its_own_output(tmp_path):
    network = sources.build(spec(tmp_path)).eval()
    images = torch.randn(2, 3, 32, 32)
    assert type(network) is transformers.ResNetForImageClassification
    assert network(images).shape == (2, 5)
    own = network(pixel_values=images, labels=torch.tensor([1, 2]))
    assert torch.equal(own.logits, network(images))
    assert own.loss.isfinite()


def test_by_spec_it_is_changed_exported_and_goes_on(tmp_path):
    given = spec(tmp_path)
    network = sources.build(given).eval()
    changed = sesurgery.apply(given, network).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(changed(images), network(images))
    report = export(changed, (3, 32, 32), tmp_path / "net.onnx", Export())
    assert report.worst < 1e-5
    changed.train()(pixel_values=images, labels=torch.tensor([0, 1])).loss.backward()
    blocks = [value for key, value in changed.named_parameters() if ".se." in key]
    assert blocks
    assert all(value.grad is not None for value in blocks)


def test_a_folder_gives_its_class_and_its_values(tmp_path, saved):
    images = torch.randn(2, 3, 32, 32)
    network = sources.build(spec(tmp_path, "net", {}, pretrained=True)).eval()
    assert torch.equal(network(images), saved(images).logits)
    fresh = sources.build(spec(tmp_path, "net", {})).eval()
    assert type(fresh) is type(network)
    assert not torch.equal(fresh(images), network(images))
    other_head = sources.build(spec(tmp_path, "net", {"num_labels": 3}, pretrained=True)).eval()
    assert other_head(images).shape == (2, 3)
    assert torch.equal(next(other_head.parameters()), next(network.parameters()))


def test_a_changed_network_is_saved_and_read_by_transformers(tmp_path, saved):
    images = torch.randn(2, 3, 32, 32)

    def with_blocks(network):
        return sesurgery.insert(network, at="residual", example_input=images, reduction=4).eval()

    changed = with_blocks(saved)
    changed.save_pretrained(tmp_path / "changed")
    again = transformers.ResNetForImageClassification.from_pretrained(tmp_path / "net")
    rebuilt = with_blocks(again)
    rebuilt.load_state_dict(load_file(tmp_path / "changed" / "model.safetensors"))
    assert torch.equal(rebuilt(images).logits, changed(images).logits)


def test_a_class_that_is_not_there_is_named_with_its_neighbours(tmp_path):
    refused("SE301", RESNET, build=lambda: sources.build(spec(tmp_path, "ResNetForImageClasification")))


def test_a_key_that_the_config_does_not_have_is_refused(tmp_path):
    refused(
        "SE302", "'depth'", "did you mean 'depths'", build=lambda: sources.build(spec(tmp_path, kwargs={"depth": 3}))
    )
    refused("SE302", "num_labels", build=lambda: sources.build(spec(tmp_path, kwargs={"num_classes": 3})))


def test_a_network_of_text_is_refused(tmp_path):
    refused("SE302", "'input_ids'", build=lambda: sources.build(spec(tmp_path, "BertModel", {})))


def test_a_class_has_no_values_of_its_own(tmp_path):
    refused("SE302", "no weights of its own", build=lambda: sources.build(spec(tmp_path, pretrained=True)))


def test_code_beside_weights_is_not_run(tmp_path, saved):
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    config |= {"architectures": ["Evil"], "auto_map": {"AutoModelForImageClassification": "evil.Evil"}}
    (tmp_path / "net" / "config.json").write_text(json.dumps(config))
    (tmp_path / "net" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    refused(
        "SE302", "'Evil'", "source: python", build=lambda: sources.build(spec(tmp_path, "net", {}, pretrained=True))
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("attn_implementation", "somebody/kernel"), ("use_pretrained_backbone", True), ("backbone", "hf-hub:some/net")],
)
def test_a_config_that_loads_something_else_is_refused(key, value, tmp_path, saved):
    refused("SE302", key, build=lambda: sources.build(spec(tmp_path, kwargs={key: value})))
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    (tmp_path / "net" / "config.json").write_text(json.dumps(config | {"backbone_config": {key: value}}))
    refused("SE302", key, build=lambda: sources.build(spec(tmp_path, "net", {})))


def test_a_pickle_beside_a_config_is_not_read(tmp_path, saved):
    (tmp_path / "net" / "model.safetensors").unlink()
    torch.save(saved.state_dict(), tmp_path / "net" / "pytorch_model.bin")
    refused("SE302", "safetensors", build=lambda: sources.build(spec(tmp_path, "net", {}, pretrained=True)))


def test_a_folder_without_a_config_is_said(tmp_path, saved):
    shutil.rmtree(tmp_path / "net")
    refused("SE301", "config.json", build=lambda: sources.build(spec(tmp_path, "net", {})))


def test_a_part_is_changed_as_its_whole_calls_it(tmp_path):
    """The whole asks its encoder for an output of a class of its own, which the part alone is not asked for."""
    given = spec(tmp_path, submodule="resnet")
    network = sources.build(given).eval()
    changed = sesurgery.apply(given, network).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(changed(images), network(images))
    new = {key for key in changed.state_dict() if key not in network.state_dict()}
    assert new
    assert all(key.startswith("resnet.") for key in new)


def test_a_part_whose_change_stops_the_whole_is_refused(tmp_path, monkeypatch):
    from sesurgery.surgeons.fx import surgeon

    def broken(part, *given):
        carry_out(part, *given)
        part.register_forward_hook(lambda *_: 1 / 0)

    carry_out = surgeon.carry_out
    monkeypatch.setattr(surgeon, "carry_out", broken)
    given = spec(tmp_path, submodule="resnet")
    with pytest.raises(SesurgeryError, match=r"SE404.*with its part changed the whole does not run"):
        sesurgery.apply(given, sources.build(given))


# --- names of the hub, read from a local cache in the hub's own layout ------------------------------------------------


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A network as `save_pretrained` leaves it, in a cache as a download leaves it; the hub is not to be reached."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    folder = cache / "models--somebody--net"
    network = transformers.ResNetForImageClassification(transformers.ResNetConfig(**TINY)).eval()
    network.save_pretrained(tmp_path / "saved")
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    for file in (tmp_path / "saved").iterdir():
        # Files lie in blobs, by what they hold; a commit has links to them.
        blob = folder / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))
    return network


def test_a_name_of_the_hub_gives_its_class_and_its_values(tmp_path, published):
    images = torch.randn(2, 3, 32, 32)
    network = sources.build(spec(tmp_path, "somebody/net", {}, pretrained=True)).eval()
    assert type(network) is type(published)
    assert torch.equal(network(images), published(images).logits)
    fresh = sources.build(spec(tmp_path, "somebody/net", {})).eval()
    assert fresh(images).shape == (2, 5)
    assert not torch.equal(fresh(images), network(images))
    other_head = sources.build(spec(tmp_path, "somebody/net", {"num_labels": 3}, pretrained=True)).eval()
    assert other_head(images).shape == (2, 3)
    assert torch.equal(next(other_head.parameters()), next(network.parameters()))


def test_a_run_of_a_name_of_the_hub_is_read_again_without_its_weights(tmp_path, published):
    given = spec(tmp_path, "somebody/net", {}, pretrained=True)
    applied = pipeline.apply(given, pipeline.Workspace(tmp_path), "spec.yaml")
    for weights in (tmp_path / "hub").glob("models--*/snapshots/*/model.safetensors"):
        weights.resolve().unlink()
        weights.unlink()
    again = checkpoint.read(applied.folder, pipeline.catalogs()).network
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), published(images).logits)


def test_a_pickle_of_a_repository_is_not_read(tmp_path, published):
    (snapshot,) = (tmp_path / "hub").glob("models--*/snapshots/*")
    (snapshot / "model.safetensors").unlink()
    torch.save(published.state_dict(), snapshot / "pytorch_model.bin")
    refused(
        "SE302",
        "safetensors",
        "somebody/net",
        build=lambda: sources.build(spec(tmp_path, "somebody/net", {}, pretrained=True)),
    )


def test_a_name_that_is_not_at_hand_is_told(tmp_path, published):
    hint = "a repository of the hub as OWNER/NAME, which needs a network"
    refused("SE302", "other/net", hint, build=lambda: sources.build(spec(tmp_path, "other/net", {})))
