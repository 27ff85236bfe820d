"""Blocks into a trained network: first train only the blocks, then everything."""

from __future__ import annotations

from dataclasses import dataclass

from sesurgery.training.presets.base import Preset, Values, root


@dataclass(frozen=True)
class BlocksFirst(Preset):
    """From trained weights: first only the blocks, with frozen norms, then everything at a tenth of the rate."""

    epochs = 12
    batch_size = 64

    def values(self, epochs: int, batch_size: int) -> Values:
        return {
            "optimizer": {
                "name": "adamw",
                "lr": root(1e-3, 64, batch_size),
                "weight_decay": 0.01,
                "decay_blocks": False,
                "warmup_epochs": min(0.5, epochs / 20),
            },
            "clip_grad": 1.0,
            "freeze": {"trained": ["blocks"], "epochs": max(1, round(epochs / 6)), "lr_after": 0.1},
            "augment": {"flip": True, "resized_crop": [0.35, 1.0]},
        }


EXAMPLES = (BlocksFirst(),)
