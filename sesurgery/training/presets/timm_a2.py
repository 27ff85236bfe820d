"""A2 of "ResNet strikes back"."""

from __future__ import annotations

from dataclasses import dataclass

from sesurgery.training.presets.base import Preset, Values, root
from sesurgery.training.presets.timm_a1 import strikes_back


@dataclass(frozen=True)
class TimmA2(Preset):
    """From scratch, 300 epochs: A2 of arXiv 2110.00476 table 2."""

    epochs = 300
    batch_size = 2048

    def values(self, epochs: int, batch_size: int) -> Values:
        # Magnitude 7 of timm's 10 steps.
        augment = {"magnitude": 21, "mixup": 0.1, "repeats": 3}
        return {
            **strikes_back(epochs, root(5e-3, 2048, batch_size), weight_decay=0.02, augment=augment),
            "drop_path": 0.05,
        }


EXAMPLES = (TimmA2(),)
