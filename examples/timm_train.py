"""SE into a network of timm, trained with timm's parts: `python examples/timm_train.py`.

Optimiser, schedule, loader, mixup, average and checkpoints are those of timm's training script; images are generated.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import Mixup, create_dataset, create_loader
from timm.loss import SoftTargetCrossEntropy
from timm.models import load_checkpoint
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import nn

import sesurgery


def folder_of_images(root: Path, count: int) -> None:
    """Images as ImageNet lies: ROOT/train/CLASS/NAME.png."""
    for index in range(count):
        path = root / "train" / f"class{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), tuple(200 if band == index % 3 else 30 for band in range(3))).save(path)


def with_blocks(plain: nn.Module) -> nn.Module:
    return sesurgery.insert(plain, block="se", at="residual", init="identity", example_input=torch.zeros(1, 3, 32, 32))


def main(folder: Path, epochs: int = 2) -> None:
    torch.manual_seed(0)
    folder_of_images(folder / "images", 24)
    plain = timm.create_model("resnet18", num_classes=3)
    torch.save({"state_dict": plain.state_dict()}, folder / "plain.pth.tar")

    plain = timm.create_model("resnet18", num_classes=3, checkpoint_path=str(folder / "plain.pth.tar"))
    model = with_blocks(plain)
    sample = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        difference = (model.eval()(sample) - plain.eval()(sample)).abs().max()
    print(f"logits with blocks and without differ by {difference:.1e} at insertion")
    if difference > 1e-4:
        sys.exit("the blocks do not start as the identity")

    dataset = create_dataset("", root=str(folder / "images"), split="train", is_training=True)
    loader = create_loader(
        dataset,
        input_size=(3, 32, 32),
        batch_size=8,
        is_training=True,
        num_workers=0,
        use_prefetcher=False,
        persistent_workers=False,
        auto_augment="rand-m7-mstd0.5",
    )
    optimizer = create_optimizer_v2(model, opt="lamb", lr=5e-3, weight_decay=0.02, layer_decay=0.8)
    scheduler, epochs = create_scheduler_v2(optimizer, num_epochs=epochs, updates_per_epoch=len(loader))
    mixup = Mixup(mixup_alpha=0.1, cutmix_alpha=1.0, num_classes=3, label_smoothing=0.1)
    average, loss_of = ModelEmaV3(model, decay=0.9), SoftTargetCrossEntropy()
    (folder / "checkpoints").mkdir()
    saver = CheckpointSaver(model, optimizer, model_ema=average, checkpoint_dir=str(folder / "checkpoints"))
    for epoch in range(epochs):
        model.train()
        for images, labels in loader:
            images, targets = mixup(images, labels)
            loss = loss_of(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update(model)
        scheduler.step(epoch + 1)
        saver.save_checkpoint(epoch, metric=-float(loss))
        print(f"epoch {epoch}  loss {loss.item():.3f}")

    again = with_blocks(timm.create_model("resnet18", num_classes=3))
    load_checkpoint(again, str(folder / "checkpoints" / "last.pth.tar"), use_ema=False)
    with torch.no_grad():
        same = torch.equal(again.eval()(sample), model.eval()(sample))
    print(f"loaded again, it gives the same logits: {same}")
    if not same:
        sys.exit("what was saved is not what was loaded")

    torch.onnx.export(again, (sample,), folder / "with_se.onnx", dynamo=True, verbose=False)
    print("exported with_se.onnx")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
