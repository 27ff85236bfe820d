"""A batch norm folded into the convolution before it, for evaluation.

    y = g (u - m) / sqrt(v + e) + h,  u = W x + b    =>    y = (s W) x + (s (b - m) + h),  s = g / sqrt(v + e)

Only where nothing else reads u. In float64, then rounded once to the weight's type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, fx

from sesurgery.lowering.base import Edit
from sesurgery.lowering.fx import graph
from sesurgery.lowering.fx.base import NetworkPass
from sesurgery.lowering.fx.graph import aten

CONVOLUTIONS = (aten.conv2d.default, aten.conv2d.padding)
NORMS = (aten._native_batch_norm_legit_no_training.default, aten.batch_norm.default)


@dataclass(frozen=True)
class FoldNorms(NetworkPass):
    """Fold every batch norm that directly follows a convolution with known weights."""

    tolerance: ClassVar[float] = 1e-5

    def apply(self, module: fx.GraphModule) -> tuple[Edit, ...]:
        edits = [
            edit
            for node in list(module.graph.nodes)
            if node.target in NORMS and (edit := _fold(module, node)) is not None
        ]
        graph.clean(module)
        return tuple(edits)


def _fold(module: fx.GraphModule, norm: fx.Node) -> Edit | None:
    made = norm.args[0]
    whole = norm.target is aten.batch_norm.default
    if not isinstance(made, fx.Node) or made.target not in CONVOLUTIONS:
        return Edit(norm.name, f"it follows {getattr(made, 'target', made)}, not a convolution", changed=False)
    if len(made.users) > 1:
        return Edit(norm.name, "the convolution has another reader than its norm", changed=False)
    if whole and norm.args[5]:
        return Edit(norm.name, "it normalises by the batch", changed=False)
    eps = float(norm.args[7 if whole else 6])  # type: ignore[arg-type]
    weight = graph.constant(module, made.args[1])
    given = made.args[2] if len(made.args) > 2 else None
    bias = None if given is None else graph.constant(module, given)
    parts = [None if arg is None else graph.constant(module, arg) for arg in norm.args[1:5]]
    missing = [arg for arg, part in zip(norm.args[1:5], parts, strict=True) if arg is not None and part is None]
    if weight is None or missing or (given is not None and bias is None):
        return Edit(norm.name, "its weights or the convolution's are computed", changed=False)
    new_weight, new_bias = folded(weight, bias, parts[0], parts[1], parts[2], parts[3], eps)  # type: ignore[arg-type]
    name = str(made.args[1].target)  # type: ignore[union-attr]
    args = list(made.args)
    args[1:3] = [
        graph.add_constant(module, made, f"{name}_folded", new_weight),
        graph.add_constant(module, made, f"{name}_folded_bias", new_bias),
    ]
    made.args = tuple(args)
    if whole:
        norm.replace_all_uses_with(made)
    else:
        for user in list(norm.users):
            # The statistics that the operation returns beside its output are empty, and nothing reads them.
            if user.args[1] == 0:
                user.replace_all_uses_with(made)
    return Edit(graph.path_of(norm), "the norm is part of the convolution", changed=True)


def folded(
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    shift: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that includes the norm, in the weight's own type."""
    scale = torch.rsqrt(variance.double() + eps) * (1.0 if gain is None else gain.double())
    offset = ((0.0 if bias is None else bias.double()) - mean.double()) * scale
    offset = offset if shift is None else offset + shift.double()
    return (weight.double() * scale[:, None, None, None]).to(weight.dtype), offset.to(weight.dtype)
