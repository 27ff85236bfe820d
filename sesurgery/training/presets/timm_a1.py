"""A1 of "ResNet strikes back"."""

from __future__ import annotations

from dataclasses import dataclass

from sesurgery.training.presets.base import Preset, Values, root


@dataclass(frozen=True)
class TimmA1(Preset):
    """From scratch, 600 epochs: A1 of arXiv 2110.00476 table 2, the longest of the three."""

    epochs = 600
    batch_size = 2048

    def values(self, epochs: int, batch_size: int) -> Values:
        # Magnitude 7 of timm's 10 steps.
        augment = {"magnitude": 21, "mixup": 0.2, "repeats": 3}
        return {
            **strikes_back(epochs, root(5e-3, 2048, batch_size), weight_decay=0.01, augment=augment),
            "label_smoothing": 0.1,
            "drop_path": 0.05,
        }


def strikes_back(epochs: int, lr: float, *, weight_decay: float, augment: Values) -> Values:
    """The values that A1, A2 and A3 have in common."""
    return {
        "optimizer": {
            "name": "lamb",
            "lr": lr,
            "weight_decay": weight_decay,
            "warmup_epochs": min(5.0, epochs / 20),
        },
        "schedule": {"name": "cosine", "min_lr": 1e-6, "warmup_lr": 1e-4},
        "loss": "bce",
        "bce_threshold": 0.2,
        "augment": {"flip": True, "resized_crop": [0.08, 1.0], "randaugment": 2, "cutmix": 1.0, **augment},
    }


EXAMPLES = (TimmA1(),)
