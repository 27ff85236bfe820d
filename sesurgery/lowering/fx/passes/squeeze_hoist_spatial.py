"""A squeeze moved before a convolution with taps, stride or border, on the network's graph.

`sesurgery/lowering/passes/squeeze_hoist_spatial.py` derives the form: the mean of every tap of x is a matrix product
with a constant, and the convolution folds into the gate's first projection over (taps x channels).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from sesurgery.lowering.algebra import moved_taps, not_spatial, share_of, too_large
from sesurgery.lowering.base import Edit
from sesurgery.lowering.fx import graph
from sesurgery.lowering.fx.base import NetworkPass
from sesurgery.lowering.fx.gates import squeezes
from sesurgery.lowering.fx.graph import aten
from sesurgery.lowering.fx.passes.squeeze_hoist import fold
from sesurgery.lowering.fx.squeezes import Commuting, commuting


@dataclass(frozen=True)
class SqueezeHoistSpatial(NetworkPass):
    """Let squeezes average every tap of the input of spatial convolutions."""

    after: ClassVar[tuple[str, ...]] = ("fold_norms", "squeeze_hoist")
    tolerance: ClassVar[float] = 1e-5

    def apply(self, module: fx.GraphModule) -> tuple[Edit, ...]:
        edits = []
        for squeeze in list(squeezes(module)):
            found = commuting(module, squeeze)
            reason = found if isinstance(found, str) else _refusal(found)
            if isinstance(found, Commuting) and reason is None:
                kh, kw = _hoist(module, found)
                edits.append(Edit(found.where, moved_taps(kh, kw, found.shape[0]), changed=True))
            else:
                edits.append(Edit(graph.path_of(squeeze), str(reason), changed=False))
        graph.clean(module)
        return tuple(edits)


def _refusal(found: Commuting) -> str | None:
    return not_spatial(found.over, found.shape, found.out) or too_large(found.shape, found.out)


def _hoist(module: fx.GraphModule, found: Commuting) -> tuple[int, int]:
    """M = x K^T with K (kh kw, H W) the share of every position in every tap; then W folds over (I, kh kw)."""
    over, positions = found.over, math.prod(found.out[1:])
    kh, kw = over.weight.shape[2:]
    share = share_of(positions)
    shares = share * over.taps(found.shape, found.out).reshape(kh * kw, -1).T
    source, before = over.node.args[0], found.projection
    example = over.node.args[1].meta["val"]  # type: ignore[union-attr]
    constant = graph.add_constant(module, before, "tap_shares", torch.from_numpy(shares).to(example.dtype))
    flat = graph.call(module, before, aten.flatten.using_ints, source, 2)
    taps = graph.call(module, before, aten.matmul.default, flat, constant)
    averaged = graph.call(module, before, aten.flatten.using_ints, taps, 1)
    for _ in range(2):
        averaged = graph.call(module, before, aten.unsqueeze.default, averaged, -1)
    weight = found.folded[0]
    fold(module, found, averaged, weight.reshape(len(weight), -1) / (positions * share))
    return int(kh), int(kw)
