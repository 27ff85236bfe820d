"""How good a network's features are."""

from __future__ import annotations

from dataclasses import dataclass

from sesurgery.training.presets.base import Preset, Values, linear


@dataclass(frozen=True)
class LinearProbe(Preset):
    """From trained weights: the classifier alone, on features that stand still."""

    epochs = 20
    batch_size = 256

    def values(self, epochs: int, batch_size: int) -> Values:
        return {
            "optimizer": {
                "name": "sgd",
                "lr": linear(0.1, 256, batch_size),
                "momentum": 0.9,
                "weight_decay": 0.0,
                "warmup_epochs": 0.0,
            },
            "freeze": {"trained": ["head"]},
            "augment": {"flip": True, "resized_crop": [0.35, 1.0]},
        }


EXAMPLES = (LinearProbe(),)
