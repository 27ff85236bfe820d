"""Remove temporary files that killed commands have left in a workspace."""

from __future__ import annotations

from pathlib import Path

from sesurgery import temporaries

_OF_A_RUN = ("runs/*", "runs/*/train", "runs/*/train/epochs", "runs/*/plain", "runs/*/reports")
_OF_A_WORKSPACE = ("export", "engines", "engines/.timing", "runs", *_OF_A_RUN)
PLACES = (*_OF_A_WORKSPACE, "studies/*", *(f"studies/*/{place}" for place in _OF_A_WORKSPACE))
"""Where artefacts lie, with or without others below them."""


def clean(root: Path) -> tuple[Path, ...]:
    """Remove them, and return their paths. Files of running processes stay."""
    return temporaries.sweep(*(folder for place in PLACES for folder in root.glob(place) if folder.is_dir()))
