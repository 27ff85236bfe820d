"""Distillation from the network without blocks."""

from __future__ import annotations

from dataclasses import dataclass

from sesurgery.training.presets.base import Preset, Values
from sesurgery.training.presets.blocks_first import BlocksFirst


@dataclass(frozen=True)
class Distilled(Preset):
    """From trained weights: like `blocks_first`, with the network without blocks as the teacher (arXiv 1503.02531)."""

    epochs = BlocksFirst.epochs
    batch_size = BlocksFirst.batch_size

    def values(self, epochs: int, batch_size: int) -> Values:
        distill = {"teacher": "plain", "share": 0.5, "temperature": 2.0}
        return {**BlocksFirst().values(epochs, batch_size), "distill": distill}


EXAMPLES = (Distilled(),)
