"""Networks of Ultralytics: by spec and by insert, exported, and going on in their own trainer. Skipped without it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import sesurgery
from sesurgery import pipeline
from sesurgery.blocks.modules.se import SEModule
from sesurgery.diagnostics import SesurgeryError
from sesurgery.networks import sources
from sesurgery.networks.export import convert, export
from sesurgery.networks.onnx_network import OnnxNetwork
from sesurgery.networks.torch_network import usual_shape
from sesurgery.spec.export import Export
from sesurgery.surgeons.fx.inputs import tensors
from tests.fixtures.surgery import planned, rules

# It writes its settings while it is imported, and asks whether there is a network.
os.environ.setdefault("YOLO_OFFLINE", "True")
os.environ.setdefault("YOLO_CONFIG_DIR", os.path.join(os.environ.get("TMPDIR", "/tmp"), "ultralytics"))
pytest.importorskip("ultralytics", reason="ultralytics is not installed (AGPL: it is not a dependency)")

FAMILIES = {
    "yolov5n": "residual",
    "yolov6n": "conv",
    "yolov8n": "residual",
    "yolov8n-cls": "residual",
    "yolov8n-seg": "residual",
    "yolov9t": "residual",
    "yolov10n": "residual",
    "yolo11n": "residual",
    "yolo12n": "residual",
    "rtdetr-resnet50": "residual",
}
QUICK = ("yolov8n-cls", "yolo11n")


def spec(name, at="residual", side=32, **model):
    return pipeline.load_spec(
        {
            "version": 1,
            "name": "net",
            "model": {"source": "ultralytics", "name": name, "kwargs": {"nc": 2}, **model},
            "input": {"shape": [3, side, side]},
            "surgery": [{"insert": {"block": "se", "init": "identity", "min_width": 4}, "at": at}],
        }
    )


def loss(output):
    return sum(item.float().sum() for item in tensors(output) if item.requires_grad)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
)
def test_a_family_keeps_its_function_and_keys_and_trains(name):
    given = spec(name, FAMILIES[name], 128 if "rtdetr" in name else 32)
    network = sources.build(given).eval()
    changed = sesurgery.apply(given, network)
    assert isinstance(changed, type(network))
    keys = list(network.state_dict())
    assert [key for key in changed.state_dict() if key in set(keys)] == keys
    image = torch.randn(2, *given.input.shape)
    with torch.no_grad():
        # By keywords, as its own predictor calls it: all outputs, not one.
        ours, theirs = [*tensors(changed.eval()(x=image))], [*tensors(network(x=image))]
    assert len(ours) == len(theirs)
    assert all(map(torch.equal, ours, theirs))
    changed.train()
    loss(changed(image)).backward()
    blocks = [value for key, value in changed.named_parameters() if key not in set(keys)]
    assert blocks
    assert all(value.grad is not None and value.grad.isfinite().all() for value in blocks)
    before = [value.clone() for value in blocks]
    torch.optim.SGD(changed.parameters(), lr=0.1).step()
    assert any(not torch.equal(one, other) for one, other in zip(blocks, before, strict=True))


def test_insert_takes_a_network_as_ultralytics_makes_it():
    from ultralytics.nn.tasks import ClassificationModel

    model = ClassificationModel("yolov8n-cls.yaml", nc=2, verbose=False).eval()
    changed = sesurgery.insert(model, at="residual", example_input=torch.zeros(1, 3, 32, 32), init="identity")
    image = torch.randn(2, 3, 32, 32)
    assert all(torch.equal(one, other) for one, other in zip(changed(image), model(image), strict=True))


def test_a_detector_is_planned_and_keeps_what_it_was():
    given = spec("yolov3-tiny", "conv")
    network = sources.build(given).eval()
    before = dict(vars(network.model[-1]))
    # Five of the backbone, one of the neck, four of the head: none gives an answer, or a map of one pixel.
    assert len(sesurgery.plan(given, network).sites) == 10
    assert vars(network.model[-1]) == before


def test_a_classifier_gives_its_logits_in_either_mode():
    network = sources.build(spec("yolov8n-cls"))
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert network.train()(image).shape == (2, 2)
        found, (probabilities, logits) = network.eval()(image), network.predict(image)
    assert torch.equal(found, logits)
    assert torch.equal(found.softmax(1), probabilities)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov8n", "yolov8n-cls"])
def test_a_changed_network_is_exported_and_agrees(name, tmp_path):
    given = spec(name)
    changed = sesurgery.apply(given, sources.build(given))
    report = export(changed, given.input.shape, tmp_path / "net.onnx", Export())
    assert report.worst < 1e-3


@pytest.mark.parametrize("name", ["yolov99n.yaml", "https://host/yolov8n.yaml", "../yolov8n.yaml"])
def test_a_family_that_is_not_there_is_named(name):
    with pytest.raises(SesurgeryError, match=r"SE301.*ultralytics has no family"):
        sources.build(spec(name))


def test_a_head_that_reads_text_is_refused_by_name():
    with pytest.raises(SesurgeryError, match=r"SE302.*ends with WorldDetect, which needs more than an image"):
        sources.build(spec("yolov8s-world"))


def test_a_key_that_its_class_does_not_take_is_said():
    with pytest.raises(SesurgeryError, match=r"SE302.*unexpected keyword argument 'num_classes'") as caught:
        sources.build(spec("yolov8n-cls", kwargs={"num_classes": 2}))
    assert caught.value.diagnostics[0].hint == "classes are 'nc', channels 'ch'"


def test_a_yaml_file_in_the_current_folder_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "yolov8n-cls.yaml").write_text("activation: open('ran', 'w')\nbackbone: []\nhead: []\n")
    monkeypatch.chdir(tmp_path)
    sources.build(spec("yolov8n-cls"))
    assert not (tmp_path / "ran").exists()


def test_building_prints_nothing(capsys):
    sources.build(spec("yolov8n-cls"))
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_changed_network_goes_on_in_ultralytics_own_trainer(tmp_path):
    from PIL import Image
    from ultralytics import YOLO
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.nn.tasks import DetectionModel

    draw = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / "data" / kind / part).mkdir(parents=True)
        for index in range(2):
            pixels = draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / "images" / part / f"{index}.png")
            (tmp_path / "data" / "labels" / part / f"{index}.txt").write_text(f"{index} 0.5 0.5 0.4 0.4\n")
    data = tmp_path / "data.yaml"
    data.write_text(f"path: {tmp_path / 'data'}\ntrain: images/train\nval: images/val\nnames: [a, b]\n")
    model = DetectionModel("yolov5n.yaml", nc=2, verbose=False)
    changed = sesurgery.insert(model, at="residual", example_input=torch.zeros(1, 3, 32, 32), init="identity")
    blocks = {key for key in changed.state_dict() if ".se." in key}
    before = {key: value.clone() for key, value in changed.state_dict().items() if key in blocks}

    class Trainer(DetectionTrainer):
        def get_model(self, cfg=None, weights=None, verbose=True):
            return changed

    yolo = YOLO("yolov5n.yaml")
    options = {"optimizer": "SGD", "lr0": 0.1, "warmup_epochs": 0, "amp": False, "plots": False, "workers": 0}
    yolo.train(
        trainer=Trainer, data=str(data), epochs=2, imgsz=32, batch=2, device="cpu", project=str(tmp_path), **options
    )
    assert blocks
    assert blocks <= set(yolo.model.state_dict())
    assert any(not torch.equal(changed.state_dict()[key], value) for key, value in before.items())
    again = YOLO(next(tmp_path.rglob("last.pt")))
    assert blocks <= set(again.model.state_dict())


@pytest.mark.parametrize("name", ["yolov8n", "yolov8n.yaml"])
def test_a_family_is_named_on_the_command_line_too(name, tmp_path, monkeypatch):
    # The name of a family ends as a spec's file does.
    monkeypatch.chdir(tmp_path)
    first = pipeline.init(f"ultralytics:{name}", shape=(3, 64, 64))
    assert first.path == Path("specs/yolov8n.yaml")
    assert "nc: 10" in first.text
    assert "pretrained" not in first.text
    assert len(pipeline.plan(pipeline.load_spec(first.path)).plan.sites) == len(first.plan.sites) > 0


def test_a_detector_is_looked_at_in_the_size_it_is_trained_at():
    given = spec("yolov8n", "conv")
    assert usual_shape(given, sources.build(given)) == (3, 640, 640)
    classifier = spec("yolov8n-cls")
    assert usual_shape(classifier, sources.build(classifier)) == (3, 224, 224)


def test_attention_and_its_position_code_take_no_block():
    given = spec("yolo11n", "residual", side=96)
    assert not [site for site in sesurgery.plan(given, sources.build(given)).sites if ".attn" in site.scope]


def test_norms_are_folded_in_a_changed_network_as_in_any_other():
    # `Conv(act=False)` ends in an identity. Folded it has another forward, in which no block may be lost.
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel("yolo11n.yaml", nc=2, verbose=False).eval()
    changed = sesurgery.insert(model, at="residual", min_width=4, example_input=torch.zeros(1, 3, 96, 96)).eval()
    image, called = torch.rand(1, 3, 96, 96), []
    with torch.no_grad():
        before = changed(image)[0]
        changed.fuse(verbose=False)
        blocks = [module for module in changed.modules() if isinstance(module, SEModule)]
        for block in blocks:
            block.register_forward_hook(lambda block, *_: called.append(block))
        after = changed(image)[0]
    assert not hasattr(changed.model[10].m[0].attn.proj, "bn")
    assert torch.allclose(before, after, rtol=1e-3, atol=1e-2)
    assert len(called) == len(blocks) > 10


C3K2 = (
    *("model.2.m.0", "model.4.m.0", "model.6.m.0.m.0", "model.6.m.0.m.1", "model.8.m.0.m.0", "model.8.m.0.m.1"),
    *("model.13.m.0", "model.16.m.0", "model.19.m.0", "model.22.m.0.m.0", "model.22.m.0.m.1"),
)
"""The units in the C3k2 blocks of yolo11n, which cut a map into a list and go on writing to it."""


class FirstOutput(torch.nn.Module):
    """As people wrap a detector to have one output."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        return self.model(image)[0]


@pytest.mark.parametrize("wrapped", [False, True], ids=["whole", "wrapped"])
def test_the_units_in_c3k2_blocks_are_sites(wrapped):
    network = sources.build(spec("yolo11n")).eval()
    before = "model." if wrapped else ""
    sites = planned(FirstOutput(network) if wrapped else network, (3, 64, 64), {"insert": "se", "at": "residual"}).sites
    scopes = [site.scope.removeprefix(before) for site in sites]
    assert [scope for scope in scopes if not scope.startswith("model.10.")] == list(C3K2)


@pytest.mark.slow
def test_the_first_k_x_k_convolutions_are_the_same_in_the_file():
    network = FirstOutput(sources.build(spec("yolo11n"))).eval()
    rule = {"insert": "se", "at": "inner"}
    # Before the export, after which the head keeps what the exporter's shapes are.
    ours = planned(network, (3, 64, 64), rule).sites
    theirs = OnnxNetwork(convert(network, (3, 64, 64), Export()), (3, 64, 64)).plan(rules(rule)).sites
    assert len(ours) == 12
    assert [site.key for site in theirs] == [site.key for site in ours]
