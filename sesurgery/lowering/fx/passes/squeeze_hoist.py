"""A squeeze moved before the 1x1 convolution whose output it averages, on the network's graph.

`sesurgery/lowering/passes/squeeze_hoist.py` derives the form. The convolution folds into the gate's first projection,
which then reads x. So the gate is known before u = W x + b, u is read only by the scaling, and the compiler can fuse
scaling, sum and ReLU into the convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from sesurgery.lowering.algebra import Array, moved, not_pointwise, too_large
from sesurgery.lowering.base import Edit
from sesurgery.lowering.fx import graph
from sesurgery.lowering.fx.base import NetworkPass
from sesurgery.lowering.fx.gates import squeezes
from sesurgery.lowering.fx.graph import aten
from sesurgery.lowering.fx.squeezes import Commuting, commuting


@dataclass(frozen=True)
class SqueezeHoist(NetworkPass):
    """Let squeezes average the input of 1x1 convolutions."""

    after: ClassVar[tuple[str, ...]] = ("fold_norms",)
    tolerance: ClassVar[float] = 1e-5

    def apply(self, module: fx.GraphModule) -> tuple[Edit, ...]:
        edits: list[Edit] = []
        made: set[str] = set()
        while True:
            known, turned_down = len(edits), []
            for squeeze in list(squeezes(module)):
                found = commuting(module, squeeze)
                reason = found if isinstance(found, str) else _refusal(found)
                if isinstance(found, Commuting) and reason is None:
                    made.add(_hoist(module, found))
                    edits.append(Edit(found.where, moved(found.shape[0], found.out[0]), changed=True))
                elif squeeze.name not in made:
                    turned_down.append(Edit(graph.path_of(squeeze), str(reason), changed=False))
            graph.clean(module)
            # x may be the output of another 1x1 convolution: then the mean moves again.
            if len(edits) == known:
                return (*edits, *turned_down)


def _refusal(found: Commuting) -> str | None:
    return not_pointwise(found.over) or too_large(found.shape, found.out)


def _hoist(module: fx.GraphModule, found: Commuting) -> str:
    """The name of the new mean."""
    averaged = graph.call(module, found.projection, aten.mean.dim, found.over.node.args[0], [2, 3], True)
    weight = found.folded[0]
    fold(module, found, averaged, weight.reshape(len(weight), -1))
    return averaged.name


def fold(module: fx.GraphModule, found: Commuting, averaged: fx.Node, weight: Array) -> None:
    """Let the projection read `averaged` (N, K, 1, 1) through `weight` (r, K), with W1 b + b1 added."""
    node, bias = found.projection, found.folded[1]
    name = str(node.args[1].target)  # type: ignore[union-attr]
    dtype = node.args[1].meta["val"].dtype  # type: ignore[union-attr]
    linear = node.target is aten.linear.default
    if linear:
        averaged = graph.call(module, node, aten.flatten.using_ints, averaged, 1)
    weight = weight if linear else weight[:, :, None, None]
    new_weight = graph.add_constant(module, node, f"{name}_hoisted", torch.from_numpy(weight).to(dtype))
    new_bias = graph.add_constant(module, node, f"{name}_hoisted_bias", torch.from_numpy(bias).to(dtype))
    node.args = (averaged, new_weight, new_bias)
