"""SE into a trained network, in a LightningModule of your own: `python examples/lightning_module.py`.

The images are generated, so that it runs anywhere in seconds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

import sesurgery


class Classifier(pl.LightningModule):
    """A network with blocks; `load_from_checkpoint` builds the same one and loads its weights."""

    def __init__(self, plain: str | None = None, classes: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="plain")
        network = resnet18(num_classes=classes)
        if plain is not None:
            network.load_state_dict(torch.load(plain, weights_only=True))
        self.network = sesurgery.insert(
            network, block="se", at="residual", init="identity", example_input=torch.zeros(1, 3, 32, 32)
        )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.network(batch)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main(folder: Path, steps: int = 4) -> None:
    torch.manual_seed(0)
    plain = resnet18(num_classes=3)
    torch.save(plain.state_dict(), folder / "plain.pt")

    model = Classifier(str(folder / "plain.pt"))
    sample = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        difference = (model.eval()(sample) - plain.eval()(sample)).abs().max()
    print(f"logits with blocks and without differ by {difference:.1e} at insertion")
    if difference > 1e-4:
        sys.exit("the blocks do not start as the identity")

    data = TensorDataset(torch.randn(16 * steps, 3, 32, 32), torch.arange(16 * steps) % 3)
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(model.train(), DataLoader(data, batch_size=16))
    trainer.save_checkpoint(folder / "with_se.ckpt")

    again = Classifier.load_from_checkpoint(folder / "with_se.ckpt", map_location="cpu", weights_only=True)
    with torch.no_grad():
        same = torch.equal(again.eval()(sample), model.cpu().eval()(sample))
    print(f"loaded again, it gives the same logits: {same}")
    if not same:
        sys.exit("what was saved is not what was loaded")

    again.to_onnx(folder / "with_se.onnx", sample, dynamo=True, verbose=False)
    print("exported with_se.onnx")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
