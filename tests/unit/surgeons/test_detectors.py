"""Detectors of torchvision, which take a list of images: the error names the part that takes a batch, and it works."""

from __future__ import annotations

import pytest
import torch
import torchvision

import sesurgery
from sesurgery.diagnostics import SesurgeryError

DETECTORS = (
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "fcos_resnet50_fpn",
)
SMALL = {"min_size": 64, "max_size": 64}
TARGET = {"boxes": torch.tensor([[1.0, 1.0, 9.0, 9.0]]), "labels": torch.tensor([1])}
PART = "name a part of it as 'submodule': 'backbone' "


def fresh(name: str) -> torch.nn.Module:
    return torchvision.models.get_model(name, weights=None, weights_backbone=None, **SMALL).eval()


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_called_with_its_list_of_images_has_the_part_named_that_works(name):
    with pytest.raises(SesurgeryError) as caught:
        sesurgery.insert(fresh(name), example_input=([torch.zeros(3, 64, 64)],))
    assert caught.value.render() == (
        "error[SE304]: example_input must hold an image batch [N, C, H, W], "
        "found a list of images, the first [3, 64, 64]\n"
        f"  hint: {PART}(16 sites at residual, 57 at conv)"
    )


@pytest.mark.parametrize(
    "example",
    [[torch.zeros(3, 64, 64)], {"images": [torch.zeros(3, 64, 64)]}, ([torch.zeros(3, 64, 64)], [TARGET])],
    ids=["the list itself", "by name", "with targets"],
)
def test_however_the_list_is_given_the_part_is_named(example):
    with pytest.raises(SesurgeryError) as caught:
        sesurgery.insert(fresh("fcos_resnet50_fpn"), example_input=example)
    assert (caught.value.diagnostics[0].hint or "").startswith(PART)


def test_a_detector_within_a_wrapper_has_its_part_named_by_the_whole_path():
    class Wrapper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = fresh("fcos_resnet50_fpn")

        def forward(self, images: list[torch.Tensor]) -> object:
            return self.model(images)

    with pytest.raises(SesurgeryError, match=r"as 'submodule': 'model\.backbone' \(16 sites"):
        sesurgery.insert(Wrapper(), example_input=([torch.zeros(3, 64, 64)],))


@pytest.mark.slow
@pytest.mark.parametrize(("at", "promised"), [("residual", 16), ("conv", 57)])
def test_the_part_that_is_named_takes_as_many_blocks_as_were_promised(at, promised):
    model, images = fresh("fcos_resnet50_fpn"), [torch.rand(3, 64, 64)]
    example = {"example_input": (images,), "submodule": "backbone"}
    changed = sesurgery.insert(model, **example, at=at, init="identity", expect=promised)
    with torch.no_grad():
        assert all(torch.equal(changed(images)[0][key], value) for key, value in model(images)[0].items())


@pytest.mark.slow
def test_a_detector_whose_boxes_let_no_gradient_through_has_its_part_named_too():
    model = torchvision.models.get_model(
        "fasterrcnn_mobilenet_v3_large_320_fpn", weights=None, weights_backbone=None, **SMALL
    )
    with pytest.raises(SesurgeryError) as caught:
        sesurgery.insert(model, example_input=torch.zeros(1, 3, 64, 64))
    first, *others = caught.value.diagnostics
    assert "does not reach the network's output" in first.message
    assert first.hint == f"nothing was changed; choose another placement, or {PART}(10 sites at residual, 40 at conv)"
    assert not any(other.hint for other in others)
