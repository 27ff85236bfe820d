"""SE into the encoder of a U-Net of segmentation_models_pytorch: `python examples/segmentation.py`.

It needs `pip install segmentation-models-pytorch`. The images are generated.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from torch import nn

import sesurgery


def unet() -> nn.Module:
    # With `encoder_weights="imagenet"` it would be the trained encoder.
    return smp.Unet("resnet18", encoder_weights=None, decoder_channels=(32, 16, 16, 8, 8), classes=2)


def with_blocks(plain: nn.Module) -> nn.Module:
    return sesurgery.insert(
        plain,
        block="scse",
        at="residual",
        init="identity",
        submodule="encoder",
        example_input=torch.zeros(2, 3, 64, 64),
    )


def main(folder: Path, steps: int = 3) -> None:
    torch.manual_seed(0)
    torch.save(unet().state_dict(), folder / "plain.pt")
    plain = unet()
    plain.load_state_dict(torch.load(folder / "plain.pt", weights_only=True))
    model = with_blocks(plain)
    images = torch.randn(4, 3, 64, 64)
    masks = (images.mean(1) > 0).long()
    with torch.no_grad():
        difference = (model.eval()(images) - plain.eval()(images)).abs().max()
    print(f"masks with blocks and without differ by {difference:.1e} at insertion")
    if difference > 1e-4:
        sys.exit("the blocks do not start as the identity")

    optimizer, loss_of = torch.optim.AdamW(model.parameters(), lr=1e-3), smp.losses.DiceLoss("multiclass")
    model.train()
    for step in range(steps):
        loss = loss_of(model(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}  Dice loss {loss.item():.3f}")

    torch.save(model.state_dict(), folder / "with_blocks.pt")
    again = with_blocks(unet())
    again.load_state_dict(torch.load(folder / "with_blocks.pt", weights_only=True))
    with torch.no_grad():
        same = torch.equal(again.eval()(images), model.eval()(images))
    print(f"loaded again, it gives the same masks: {same}")
    if not same:
        sys.exit("what was saved is not what was loaded")

    torch.onnx.export(again, (images,), folder / "with_blocks.onnx", dynamo=True, verbose=False)
    print("exported with_blocks.onnx")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
