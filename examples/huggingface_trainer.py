"""SE into a network of transformers, trained by its Trainer: `python examples/huggingface_trainer.py`.

It needs `pip install transformers accelerate`. The network is small and the images are generated; with one of the
hub, it is `ResNetForImageClassification.from_pretrained(...)`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

import sesurgery


class Images(Dataset):
    """What the Trainer wants: dictionaries of what the network's forward takes."""

    def __init__(self, count: int) -> None:
        self.labels = torch.arange(count) % 3
        self.pixels = torch.randn(count, 3, 32, 32)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self.pixels[index], "labels": self.labels[index]}


def with_blocks(plain: nn.Module) -> nn.Module:
    return sesurgery.insert(
        plain,
        block="se",
        at="residual",
        init="identity",
        example_input={"pixel_values": torch.zeros(1, 3, 32, 32)},
    )


def main(folder: Path, steps: int = 4) -> None:
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=3)
    ResNetForImageClassification(config).save_pretrained(folder / "plain")

    plain = ResNetForImageClassification.from_pretrained(folder / "plain")
    model = with_blocks(plain)
    sample = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        difference = model.eval()(pixel_values=sample).logits - plain.eval()(pixel_values=sample).logits
    print(f"logits with blocks and without differ by {difference.abs().max():.1e} at insertion")
    if difference.abs().max() > 1e-4:
        sys.exit("the blocks do not start as the identity")

    arguments = TrainingArguments(
        output_dir=str(folder / "trained"),
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        report_to=[],
        save_steps=steps,
        logging_steps=1,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    Trainer(model=model, args=arguments, train_dataset=Images(32)).train()

    # `from_pretrained` builds a plain network: build, insert, load.
    again = with_blocks(ResNetForImageClassification(config))
    again.load_state_dict(load_file(folder / "trained" / f"checkpoint-{steps}" / "model.safetensors"))
    with torch.no_grad():
        ours, theirs = (network.cpu().eval()(pixel_values=sample).logits for network in (again, model))
    print(f"loaded again, it gives the same logits: {torch.equal(ours, theirs)}")
    if not torch.equal(ours, theirs):
        sys.exit("what was saved is not what was loaded")

    torch.onnx.export(again, (), folder / "with_se.onnx", kwargs={"pixel_values": sample}, dynamo=True, verbose=False)
    print("exported with_se.onnx")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
