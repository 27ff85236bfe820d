"""Squeeze-and-Excitation into a trained network, in a training loop of your own: `python examples/plain_pytorch.py`.

The images are generated, so that it runs anywhere in seconds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

import sesurgery


def images(count: int, seed: int) -> TensorDataset:
    """Noise of one of three colours; the colour is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    pixels = torch.randn(count, 3, 32, 32, generator=generator)
    pixels[torch.arange(count), labels] += 2
    return TensorDataset(pixels, labels)


def with_blocks(plain: nn.Module) -> nn.Module:
    """The network with a block at the end of every residual branch; at first it computes what it did before."""
    return sesurgery.insert(
        plain, block="se", at="residual", reduction=8, init="identity", example_input=torch.zeros(1, 3, 32, 32)
    )


def main(folder: Path, steps: int = 6) -> None:
    torch.manual_seed(0)
    # The checkpoint that you have: a plain network's.
    torch.save(resnet18(num_classes=3).state_dict(), folder / "plain.pt")

    plain = resnet18(num_classes=3)
    plain.load_state_dict(torch.load(folder / "plain.pt", weights_only=True))
    model = with_blocks(plain)
    sample = images(4, seed=1).tensors[0]
    with torch.no_grad():
        difference = (model.eval()(sample) - plain.eval()(sample)).abs().max()
    print(f"logits with blocks and without differ by {difference:.1e} at insertion")
    if difference > 1e-4:
        sys.exit("the blocks do not start as the identity")

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for step, (batch, labels) in enumerate(DataLoader(images(16 * steps, seed=0), batch_size=16, shuffle=True)):
        loss = F.cross_entropy(model(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}  loss {loss.item():.3f}")

    torch.save(model.state_dict(), folder / "with_se.pt")
    again = with_blocks(resnet18(num_classes=3))
    again.load_state_dict(torch.load(folder / "with_se.pt", weights_only=True))
    with torch.no_grad():
        same = torch.equal(again.eval()(sample), model.eval()(sample))
    print(f"loaded again, it gives the same logits: {same}")
    if not same:
        sys.exit("what was saved is not what was loaded")

    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.onnx.export(
        again, (sample,), folder / "with_se.onnx", dynamic_shapes=({0: batch},), dynamo=True, verbose=False
    )
    print("exported with_se.onnx")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
