"""Writes checkpoints directly to the named file, so that nothing is left elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO


class Straight(TorchCheckpointIO):  # type: ignore[misc]
    """Lightning's own goes by a file in the system's folder for temporaries, where a killed process leaves it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        # Python's file tells why it cannot be written; torch's own does not.
        with Path(path).open("wb") as stream:
            torch.save(checkpoint, stream)
