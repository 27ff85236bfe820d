"""A3 of "ResNet strikes back"."""

from __future__ import annotations

from dataclasses import dataclass

from sesurgery.training.presets.base import Preset, Values, root
from sesurgery.training.presets.timm_a1 import strikes_back


@dataclass(frozen=True)
class TimmA3(Preset):
    """From scratch, 100 epochs: A3 of arXiv 2110.00476 table 2; published for images of 160 pixels."""

    epochs = 100
    batch_size = 2048

    def values(self, epochs: int, batch_size: int) -> Values:
        # Magnitude 6 of timm's 10 steps.
        augment = {"magnitude": 18, "mixup": 0.1}
        return strikes_back(epochs, root(8e-3, 2048, batch_size), weight_decay=0.02, augment=augment)


EXAMPLES = (TimmA3(),)
