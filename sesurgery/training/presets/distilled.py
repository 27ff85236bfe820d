"""The network as it was, teaching the one with blocks."""

from __future__ import annotations

from dataclasses import dataclass

from sesurgery.training.presets.base import Preset, Values, root


@dataclass(frozen=True)
class Distilled(Preset):
    """From trained weights: blocks first, taught by the untouched network (arXiv 1503.02531)."""

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
            "distill": {"teacher": "plain", "share": 0.5, "temperature": 2.0},
            "freeze": {"trained": ["blocks"], "epochs": max(1, round(epochs / 6)), "lr_after": 0.1},
            "augment": {"flip": True, "resized_crop": [0.35, 1.0]},
        }


EXAMPLES = (Distilled(),)
