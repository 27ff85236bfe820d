"""A2 of "ResNet strikes back"."""

from __future__ import annotations

from dataclasses import dataclass

from sesurgery.training.presets.base import Preset, Values, root


@dataclass(frozen=True)
class TimmA2(Preset):
    """From scratch, 300 epochs: A2 of arXiv 2110.00476 table 2."""

    epochs = 300
    batch_size = 2048

    def values(self, epochs: int, batch_size: int) -> Values:
        return {
            "optimizer": {
                "name": "lamb",
                "lr": root(5e-3, 2048, batch_size),
                "weight_decay": 0.02,
                "warmup_epochs": min(5.0, epochs / 20),
            },
            "schedule": {"name": "cosine", "min_lr": 1e-6, "warmup_lr": 1e-4},
            "loss": "bce",
            "bce_threshold": 0.2,
            "drop_path": 0.05,
            "augment": {
                "flip": True,
                "resized_crop": [0.08, 1.0],
                "randaugment": 2,
                # 7 of timm's 10 steps.
                "magnitude": 21,
                "mixup": 0.1,
                "cutmix": 1.0,
                "repeats": 3,
            },
        }


EXAMPLES = (TimmA2(),)
