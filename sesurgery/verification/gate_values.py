"""The gates of a torch network's blocks over samples: what each block multiplies its input by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sesurgery.verification.observe import observe

Floats = NDArray[np.float64]

SPATIAL = 1e-3
"""Largest relative error with which a block's output may differ from its input scaled per channel."""


def gate_values(
    network: nn.Module, modules: Mapping[str, str], batches: Iterable[torch.Tensor]
) -> dict[str, Floats | None]:
    """The gates [N, C] of each block, NaN where a channel was zero all over; None of what is no gate of a channel."""
    found = observe(network, modules, batches, lambda given, made: gate_of(given[0], made))
    return {key: joined(parts) for key, parts in found.items()}


def joined(parts: Sequence[torch.Tensor | None]) -> Floats | None:
    """The gates [N, C] of all batches [n, C]; None if one of them has none, or no channel ever shows."""
    known = [part.double().numpy() for part in parts if part is not None]
    values = np.concatenate(known) if known and len(known) == len(parts) else None
    return None if values is None or np.isnan(values).all() else values


def gate_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
    """The number [n, C] that each channel was multiplied by; None if it differs over the map.

    It is the least-squares solution of y = s x over the map, and NaN of a channel that is zero all over: whatever the
    gate is, it does not show there.
    """
    x, y = x.detach().float().flatten(2).cpu(), y.detach().float().flatten(2).cpu()
    power = (x * x).sum(2)
    gate = (x * y).sum(2) / power.clamp_min(1e-30)
    apart = (y - x * gate.unsqueeze(2)).abs().max()
    return gate.where(power > 0, float("nan")) if apart <= SPATIAL * y.abs().max() else None
