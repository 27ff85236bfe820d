"""A network that was trained elsewhere keeps what it has: values, function, accuracy, dtype, layout."""

import onnx
import pytest
import timm
import torch
import torchvision
from fixtures.surgery import operated
from safetensors.torch import load_file, save_file
from sklearn.linear_model import RidgeClassifierCV
from torch import nn

import sesurgery
from sesurgery import pipeline
from sesurgery.networks.export import export
from sesurgery.spec.export import Export
from sesurgery.training.data import data_of
from sesurgery.training.evaluation import split_logits
from sesurgery.verification.scores import scores

SHAPE = (3, 16, 16)


def spec_file(folder, source, checkpoint):
    path = folder / "net.yaml"
    path.write_text(
        "version: 1\n"
        f"model: {{source: {source}, name: resnet18, checkpoint: {checkpoint}, kwargs: {{num_classes: 10}}}}\n"
        "input: {shape: [3, 16, 16]}\nsurgery: [{insert: {block: se, init: identity}, at: residual}]\n"
    )
    return path


def taught():
    """A network that reads digits; timm and torchvision name its weights alike.

    Its norms have the statistics of the digits, and its classifier is a good one for the features as they were drawn.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        network = torchvision.models.resnet18(num_classes=10)
        spec = {"version": 1, "model": {"source": "torchvision", "name": "resnet18"}, "input": {"shape": SHAPE}}
        train = data_of(pipeline.load_spec({**spec, "surgery": [{"insert": "se", "at": "residual"}]})).train
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        classifier, network.fc = network.fc, nn.Identity()
        network.train()(train.images[:])
        features = network.eval()(train.images[:])
        found = RidgeClassifierCV([10.0, 100.0, 1000.0, 10_000.0]).fit(features.numpy(), train.labels.numpy())
        classifier.weight.copy_(torch.from_numpy(found.coef_))
        classifier.bias.copy_(torch.from_numpy(found.intercept_))
        network.fc = classifier
    return network


@pytest.fixture(scope="module")
def trained(once):
    path = once("resnet18", lambda: save_file(taught().state_dict(), "weights.safetensors"))
    network = torchvision.models.resnet18(num_classes=10)
    network.load_state_dict(load_file(path / "weights.safetensors"))
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize("source", ["timm", "torchvision"])
@pytest.mark.parametrize("form", ["weights.pth", "wrapped.pth", "weights.safetensors"])
def test_a_local_checkpoint_keeps_its_accuracy_when_identity_blocks_go_in(source, form, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # As whoever trained it loads it, without this package.
    make = timm.create_model if source == "timm" else torchvision.models.get_model
    plain, state = make("resnet18", num_classes=10), trained.state_dict()
    plain.load_state_dict(state)
    if form.endswith(".safetensors"):
        save_file(state, tmp_path / form)
    else:
        torch.save({"epoch": 3, "state_dict": state} if form == "wrapped.pth" else state, tmp_path / form)
    spec = pipeline.load_spec(spec_file(tmp_path, source, form))
    network = pipeline.apply(spec, pipeline.Workspace(), "net.yaml").network
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())
    data = data_of(spec)
    before, after, as_trained = (
        scores(split_logits(model, data.held_out), data.held_out.labels, data.classes)
        for model in (plain, network, trained)
    )
    assert before == as_trained
    # What the fixture is for: a network that knows nothing would have nothing to keep.
    assert before.top1 > 0.8
    assert (before.correct, before.loss) == (after.correct, after.loss)


def blocks_in(model, **options):
    return sesurgery.insert(
        model, at="residual", example_input=torch.zeros(1, *SHAPE), init="identity", min_width=2, **options
    )


def test_the_memory_format_of_the_weights_survives():
    model = torchvision.models.resnet18().to(memory_format=torch.channels_last)
    changed = blocks_in(model)
    weight = changed.get_submodule("layer1.0.conv1").weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_survives_and_the_blocks_take_it(dtype):
    model = torchvision.models.resnet18().to(dtype).eval()
    changed = blocks_in(model)
    assert {part.dtype for part in changed.parameters()} == {dtype}
    image = torch.randn(2, *SHAPE, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(changed(image), model(image))


def test_parametrised_weights_stay_parametrised():
    model = torchvision.models.resnet18().eval()
    nn.utils.parametrizations.weight_norm(model.layer1[0].conv1)
    changed = blocks_in(model)
    conv = changed.get_submodule("layer1.0.conv1")
    assert nn.utils.parametrize.is_parametrized(conv, "weight")
    assert set(model.state_dict()) <= set(changed.state_dict())
    image = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(changed(image), model(image))


def test_an_old_checkpoint_loads_strictly_but_for_the_blocks_keys():
    model = torchvision.models.resnet18()
    changed = blocks_in(torchvision.models.resnet18())
    result = changed.load_state_dict(model.state_dict(), strict=False)
    assert result.unexpected_keys == []
    assert all(".se.fc" in key for key in result.missing_keys)
    assert len(result.missing_keys) == 8 * 4


def test_a_detectors_backbone_is_changed_and_the_detector_goes_on_as_before():
    detector = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=5
    ).eval()
    rule = {"insert": {"block": "se", "init": "identity"}, "at": "residual"}
    changed = operated(detector, (3, 64, 64), rule, submodule="backbone.body")
    image = [torch.rand(3, 96, 96)]
    with torch.no_grad():
        before, after = detector(image)[0], changed(image)[0]
    assert type(changed) is type(detector)
    assert all(torch.equal(before[key], after[key]) for key in before)
    new = set(changed.state_dict()) - set(detector.state_dict())
    assert new
    assert all(key.startswith("backbone.body.") for key in new)


FEW = {"rpn_post_nms_top_n_train": 50, "rpn_post_nms_top_n_test": 50, "box_detections_per_img": 5}
"""Of a detector with fresh values every box is as good as any: a thousand are no more than a few."""
DETECTORS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": ("residual", {"min_size": 64, "max_size": 96, **FEW}),
    "keypointrcnn_resnet50_fpn": ("residual", {"min_size": 64, "max_size": 96, "num_classes": 2, **FEW}),
    "maskrcnn_resnet50_fpn": ("residual", {"min_size": 64, "max_size": 96, **FEW}),
    "retinanet_resnet50_fpn": ("residual", {"min_size": 64, "max_size": 96, "detections_per_img": 5}),
    "fcos_resnet50_fpn": ("residual", {"min_size": 64, "max_size": 96, "detections_per_img": 5}),
    "ssdlite320_mobilenet_v3_large": ("residual", {}),
}


SAME_BACKBONE = ("maskrcnn_resnet50_fpn",)
"""Of the keypoint detector: it is exported once."""


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_keeps_its_function_and_keys_trains_and_its_backbone_is_exported(name, tmp_path):
    at, options = DETECTORS[name]
    fresh = {"weights": None, "weights_backbone": None, "num_classes": 3, **options}
    detector = torchvision.models.get_model(name, **fresh).eval()
    images = [torch.rand(3, 64, 80), torch.rand(3, 72, 64)]
    changed = sesurgery.insert(
        detector,
        at=at,
        example_input=([torch.zeros(3, 64, 64)],),
        submodule="backbone",
        init="identity",
        min_width=4,
    )
    keys = list(detector.state_dict())
    assert [key for key in changed.state_dict() if key in set(keys)] == keys
    new = [key for key in changed.state_dict() if key not in set(keys)]
    assert new
    assert all(key.startswith("backbone.") for key in new)
    with torch.no_grad():
        before, after = detector(images), changed(images)
    for one, other in zip(before, after, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    target |= {"keypoints": torch.ones(1, 17, 3), "masks": torch.ones(1, 64, 80, dtype=torch.uint8)}
    changed.train()
    sum(changed([images[0], images[0]], [target, target]).values()).backward()
    blocks = [value for key, value in changed.named_parameters() if key in new]
    assert any(value.grad is not None and value.grad.any() for value in blocks)
    # A small step: a large one makes maps of hundreds, whose last digits are beyond what the export allows.
    old = [value.detach().clone() for value in blocks]
    torch.optim.SGD(changed.parameters(), lr=1e-4).step()
    assert any(not torch.equal(one, other) for one, other in zip(blocks, old, strict=True))
    if name in SAME_BACKBONE:
        return
    # Every map of the pyramid is an output of the file, and is compared.
    report = export(changed.backbone.eval(), (3, 64, 64), tmp_path / "backbone.onnx", Export())
    assert report.worst < 1e-3
    with torch.no_grad():
        maps = changed.backbone(torch.zeros(1, 3, 64, 64))
    assert len(onnx.load(tmp_path / "backbone.onnx").graph.output) == len(maps)


def no_download(*_, **__):
    raise OSError("this would download")


@pytest.mark.parametrize(
    ("submodule", "sites"), [pytest.param("", 10, marks=pytest.mark.slow), ("backbone", 10), ("backbone.body", 10)]
)
def test_a_detector_by_spec_downloads_nothing_and_is_seen_whole_or_in_part(submodule, sites, monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_download)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", no_download)
    given = {
        "version": 1,
        "model": {
            "source": "torchvision",
            "name": "fasterrcnn_mobilenet_v3_large_320_fpn",
            "submodule": submodule,
            "kwargs": {"num_classes": 5},
        },
        "input": {"shape": [3, 64, 64]},
        "surgery": [{"insert": {"block": "se", "init": "identity"}, "at": "residual"}],
    }
    assert len(sesurgery.plan(given).sites) == sites


def test_a_segmenters_backbone_gives_its_features_as_before():
    segmenter = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=4).eval()
    rule = {"insert": {"block": "se", "init": "identity"}, "at": "residual", "expect": 16}
    changed = operated(segmenter, (3, 64, 64), rule, submodule="backbone")
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(changed(image)["out"], segmenter(image)["out"])
