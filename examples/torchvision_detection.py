"""SE into the backbones of torchvision's detectors: `python examples/torchvision_detection.py`.

Faster R-CNN and RetinaNet on three generated images, trained as torchvision's detection reference does.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

import sesurgery

Target = dict[str, torch.Tensor]


def scenes() -> tuple[list[torch.Tensor], list[Target]]:
    """Three dark images with one bright rectangle each, and where it is."""
    images, targets = [], []
    for index in range(3):
        image = torch.rand(3, 96, 96) * 0.2
        left, top = 10 + 10 * index, 20 + 5 * index
        image[:, top : top + 40, left : left + 30] = 0.9
        images.append(image)
        box = torch.tensor([[left, top, left + 30, top + 40]], dtype=torch.float32)
        targets.append({"boxes": box, "labels": torch.tensor([1])})
    return images, targets


def detector(kind: type[nn.Module]) -> nn.Module:
    """A plain detector on a ResNet-18 with a feature pyramid; `weights` of the backbone come from its checkpoint."""
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    # After two steps RetinaNet is sure of nothing; what it is least unsure of is kept here, to compare it.
    sure = {"score_thresh": 0.0, "detections_per_img": 20} if kind is RetinaNet else {}
    return kind(backbone, num_classes=2, min_size=96, max_size=96, **sure)


def with_blocks(plain: nn.Module) -> nn.Module:
    """The detector with blocks in the ResNet of its backbone; the rest is as it was."""
    return sesurgery.insert(
        plain,
        block="se",
        at="residual",
        init="identity",
        submodule="backbone.body",
        example_input=([torch.zeros(3, 96, 96)],),
    )


def one(kind: type[nn.Module], folder: Path, steps: int) -> None:
    torch.manual_seed(0)
    name = kind.__name__
    torch.save(detector(kind).state_dict(), folder / f"{name}.pt")
    plain = detector(kind)
    plain.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
    model = with_blocks(plain)
    images, targets = scenes()
    with torch.no_grad():
        before, after = (each.eval().backbone(torch.stack(images)) for each in (plain, model))
    difference = max(float((before[level] - after[level]).abs().max()) for level in before)
    print(f"{name}: the maps of the pyramid differ by {difference:.1e} at insertion")
    if difference > 1e-4:
        sys.exit("the blocks do not start as the identity")

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    model.train()
    for step in range(steps):
        losses = model(images, targets)
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"{name}: step {step}  " + "  ".join(f"{key} {value.item():.3f}" for key, value in losses.items()))

    torch.save(model.state_dict(), folder / f"{name}_with_se.pt")
    again = with_blocks(detector(kind))
    again.load_state_dict(torch.load(folder / f"{name}_with_se.pt", weights_only=True))
    with torch.no_grad():
        ours, theirs = (each.eval()(images) for each in (again, model))
    same = all(torch.equal(a["scores"], b["scores"]) for a, b in zip(ours, theirs, strict=True))
    print(f"{name}: loaded again, it finds the same: {same}")
    if not same:
        sys.exit("what was saved is not what was loaded")

    # The backbone, which is what changed, by the exporter of today.
    torch.onnx.export(
        again.backbone.body, (torch.stack(images),), folder / f"{name}_body.onnx", dynamo=True, verbose=False
    )
    # The whole detector by the older one: how many boxes there are, the values decide, which the newer refuses.
    torch.onnx.export(again, (images[:1],), folder / f"{name}.onnx", dynamo=False, opset_version=17)
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: images[0].numpy()})
    # The exporter gives a dictionary's values in its order, which differs from detector to detector.
    expected = [values.numpy() for values in ours[0].values()]
    print(f"{name}: exported {name}.onnx, which finds {len(found[0])} boxes where torch finds {len(expected[0])}")
    for key, of_file, of_torch in zip(ours[0], found, expected, strict=True):
        if of_file.shape != of_torch.shape or not np.allclose(of_file, of_torch, rtol=1e-3, atol=1e-3):
            sys.exit(f"the exported file finds other {key} than torch")


def main(folder: Path, steps: int = 2) -> None:
    for kind in (FasterRCNN, RetinaNet):
        one(kind, folder, steps)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
