"""SE into a YOLO network, trained by Ultralytics' own trainer: `python examples/ultralytics_yolo.py`.

It needs `pip install ultralytics`, which is AGPL-3.0 and no dependency of this project. The images are generated.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import nn
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

import sesurgery


def data_set(folder: Path) -> Path:
    """Four images with one rectangle each, as YOLO wants them."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for index in range(4):
        image = Image.new("RGB", (64, 64), (30, 30, 30))
        ImageDraw.Draw(image).rectangle((16, 16, 40, 48), fill=(220, 40 * index, 60))
        image.save(folder / "images" / f"{index}.png")
        (folder / "labels" / f"{index}.txt").write_text("0 0.4375 0.5 0.375 0.5\n")
    file = folder / "data.yaml"
    file.write_text(f"path: {folder}\ntrain: images\nval: images\nnames: {{0: box}}\n")
    return file


def with_blocks(plain: nn.Module) -> nn.Module:
    """The network with blocks at the residual sums of its third stage; all else stays Ultralytics' own."""
    return sesurgery.insert(
        plain,
        block="se",
        at="residual",
        init="identity",
        submodule="model.4",
        example_input=torch.zeros(2, 3, 64, 64),
    )


class Trainer(DetectionTrainer):
    """Ultralytics' trainer, whose network gets blocks after its weights were loaded."""

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        plain = super().get_model(cfg, weights, verbose)
        theirs, ours = weights.state_dict(), plain.state_dict()
        kept = sum(key in theirs and torch.equal(value, theirs[key]) for key, value in ours.items())
        print(f"{kept} of {len(ours)} tensors are the checkpoint's; the head's classes are others")
        if kept < 0.9 * len(ours):
            sys.exit("the checkpoint was not loaded")
        return with_blocks(plain)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    # The checkpoint that you have: a plain network's, of COCO's 80 classes, as yolov8n.pt.
    YOLO("yolov8n.yaml").save(folder / "plain.pt")

    plain = YOLO(folder / "plain.pt").model.float()
    model, sample = with_blocks(plain), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before, after = plain.eval()(sample)[0], model.eval()(sample)[0]
    difference = (before - after).abs().max()
    print(f"predictions with blocks and without differ by {difference:.1e} at insertion")
    if difference > 1e-3:
        sys.exit("the blocks do not start as the identity")
    given = {
        "model": str(folder / "plain.pt"),
        "data": str(data_set(folder / "boxes")),
        "epochs": 1,
        "imgsz": 64,
        "batch": 2,
        "workers": 0,
        "device": "cpu",
        "project": str(folder),
        "plots": False,
    }
    trainer = Trainer(overrides=given)
    trainer.train()
    trained = trainer.model.float().cpu().eval()
    torch.save(trained.state_dict(), folder / "with_se.pt")

    # Built as the trainer built it: the widths of the head follow the checkpoint's classes.
    again = trainer.get_model(plain.yaml, plain, verbose=False).float().eval()
    again.load_state_dict(torch.load(folder / "with_se.pt", weights_only=True))
    with torch.no_grad():
        same = torch.equal(again(sample)[0], trained(sample)[0])
    print(f"loaded again, it predicts the same: {same}")
    if not same:
        sys.exit("what was saved is not what was loaded")

    # What Ultralytics' own export asks of the head: one tensor.
    again.model[-1].export, again.model[-1].format = True, "onnx"
    torch.onnx.export(again, (sample,), folder / "with_se.onnx", dynamo=True, verbose=False)
    print("exported with_se.onnx")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
