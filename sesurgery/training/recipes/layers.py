"""Rates that grow from a network's first layer to its last."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from torch import nn

_NUMBERED = re.compile(r"^((?:[^.]+\.)*?\d+)\.")


def layer_rates(model: nn.Module, decay: float, blocks: Collection[str]) -> dict[str, float]:
    """A factor on the rate of every parameter: 1 in the last layer, `decay` times less in each one before it.

    What is new has the full rate: inserted blocks, whose paths are `blocks`. Layers are those that a network of timm
    names itself; of others, every numbered module is one (`layer1.0`), what comes before the first belongs to it, and
    what follows the last, the head, is the last layer.
    """
    layers = _of_timm(model) or _numbered([name for name, _ in model.named_parameters()])
    last = max(layers.values(), default=0)
    inserted = tuple(f"{path}." for path in blocks)
    return {
        name: 1.0 if name.startswith(inserted) else decay ** (last - layers.get(name, last))
        for name, _ in model.named_parameters()
    }


def _of_timm(model: Any) -> dict[str, int]:
    if not hasattr(model, "group_matcher"):
        return {}
    from timm.models import group_parameters

    found: dict[str, int] = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    return found


def _numbered(names: Collection[str]) -> dict[str, int]:
    units: list[str] = []
    layers: dict[str, int] = {}
    for name in names:
        if (found := _NUMBERED.match(name)) is not None and found[1] not in units:
            units.append(found[1])
        layers[name] = len(units) if found is None and units else max(0, len(units) - 1)
    return layers
