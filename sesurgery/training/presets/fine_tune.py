"""A trained network on other images."""

from __future__ import annotations

from dataclasses import dataclass

from sesurgery.training.presets.base import Preset, Values, root


@dataclass(frozen=True)
class FineTune(Preset):
    """From trained weights: AdamW, lower rates for early layers, the full rate for blocks and head."""

    epochs = 20
    batch_size = 64

    def values(self, epochs: int, batch_size: int) -> Values:
        return {
            "optimizer": {
                "name": "adamw",
                "lr": root(5e-4, 64, batch_size),
                "weight_decay": 0.05,
                "decay_blocks": False,
                "layer_decay": 0.8,
                "warmup_epochs": min(1.0, epochs / 10),
            },
            "label_smoothing": 0.1,
            "clip_grad": 1.0,
            "augment": {"flip": True, "resized_crop": [0.35, 1.0]},
            "ema": {"decay": 0.999, "warmup": True},
        }


EXAMPLES = (FineTune(),)
