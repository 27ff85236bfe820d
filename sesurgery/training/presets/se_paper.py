"""The recipe of Squeeze-and-Excitation networks."""

from __future__ import annotations

from dataclasses import dataclass

from sesurgery.training.presets.base import Preset, Values, linear


@dataclass(frozen=True)
class SePaper(Preset):
    """From scratch as in arXiv 1709.01507 section 6.1: SGD, a tenth of the rate each 30 of 100 epochs."""

    epochs = 100
    batch_size = 1024

    def values(self, epochs: int, batch_size: int) -> Values:
        return {
            "optimizer": {
                "name": "sgd",
                "lr": linear(0.6, 1024, batch_size),
                "momentum": 0.9,
                "nesterov": False,
                "weight_decay": 1e-4,
                "warmup_epochs": 0.0,
            },
            "schedule": {"name": "step", "decay_epochs": epochs * 0.3, "decay_rate": 0.1},
            "augment": {"flip": True, "resized_crop": [0.08, 1.0]},
        }


EXAMPLES = (SePaper(),)
