"""Values for an inserted block, taken from a run by the block's module path; the same for every surgeon."""

from __future__ import annotations

import torch
from torch import nn

from sesurgery.diagnostics import Diagnostic
from sesurgery.planner import Site
from sesurgery.surgeons.base import Weights


def graft(site: Site, block: nn.Module, weights: Weights | None) -> list[Diagnostic]:
    """Give the block the values under its path, or say what does not fit; without weights it keeps its own."""
    if weights is None:
        return []
    prefix = site.module + "."
    state = {
        key.removeprefix(prefix): torch.from_numpy(value) for key, value in weights.items() if key.startswith(prefix)
    }
    if not state and block.state_dict():
        text = f"{site.key}: there are no weights called '{prefix}*'"
        return [Diagnostic("SE401", text, hint="take a run with the same rules on the same network", site=site.key)]
    try:
        block.load_state_dict(state)
    except RuntimeError as error:
        why = " ".join(str(error).split())
        return [Diagnostic("SE401", f"{site.key}: the weights do not fit the block: {why}", site=site.key)]
    return []
