"""The means that gates read in a network's graph, and which of them can be moved before a convolution.

The counterpart of `lowering/squeezes.py` for ATen operations. Functions return the result, or a string with the reason
why there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, fx

from sesurgery.lowering import algebra
from sesurgery.lowering.algebra import Array, Kernel, Sizes
from sesurgery.lowering.fx import graph
from sesurgery.lowering.fx.gates import MAXIMA, SQUEEZES, SUMS, gate_branches, unexpanded
from sesurgery.lowering.fx.graph import aten

PROJECTIONS = (aten.conv2d.default, aten.linear.default)


@dataclass(frozen=True, kw_only=True)
class Convolution(Kernel):
    """A convolution of a network's graph with constant weights."""

    node: fx.Node


@dataclass(frozen=True)
class Commuting:
    """A gate whose mean can be moved before a convolution: mean -> projection, over u = convolution(x)."""

    mean: fx.Node
    over: Convolution
    projection: fx.Node
    """A convolution or a linear layer."""
    first: Array
    """Its weights W1 (r, O)."""
    bias: Array
    """b1 (r)."""
    shape: Sizes
    out: Sizes

    @property
    def where(self) -> str:
        return f"{graph.path_of(self.projection)} over {graph.path_of(self.over.node)}"

    @property
    def folded(self) -> tuple[Array, Array]:
        """W1 W as (r, I, kh, kw), and W1 b + b1."""
        return algebra.folded(self.first, self.bias, self.over)


def convolution(module: fx.GraphModule, node: fx.Node) -> Convolution | str:
    """A node as a convolution in two dimensions whose weights are known."""
    if node.target is aten.conv2d.padding:
        return "a convolution whose border is given in words"
    if node.target is not aten.conv2d.default:
        return str(node.target) if node.op == "call_function" else "the network's input"
    given: tuple[Any, ...] = (*node.args, *(None, (1, 1), (0, 0), (1, 1), 1)[len(node.args) - 2 :])
    weight = graph.constant(module, given[1])
    bias = None if given[2] is None else graph.constant(module, given[2])
    if weight is None or (given[2] is not None and bias is None):
        return "a convolution with computed weights"
    strides, pads, dilations = ((int(pair[0]), int(pair[-1])) for pair in given[3:6])
    return Convolution(
        node=node,
        weight=_exact(weight),
        bias=np.zeros(weight.shape[0]) if bias is None else _exact(bias),
        strides=strides,
        dilations=dilations,
        pads=(*pads, *pads),
        groups=int(given[6]),
    )


def commuting(module: fx.GraphModule, mean: fx.Node) -> Commuting | str:
    """A squeeze with the convolution that its mean can be moved before."""
    if mean.target in MAXIMA:
        return "it is a maximum, not a mean"
    if mean.target in SUMS:
        return "it is a sum, not a mean"
    if mean.target not in SQUEEZES:
        return "it is every tap of a convolution (hoisted already)"
    source = mean.args[0]
    assert isinstance(source, fx.Node)
    if len(graph.shape_of(source)) != 4:
        return f"it reads a value of rank {len(graph.shape_of(source))}, not a map (N, C, H, W)"
    if mean.target is aten.mean.dim and sorted(int(dim) % 4 for dim in mean.args[1]) != [2, 3]:  # type: ignore
        return f"its axes are {list(mean.args[1])}: it is not taken over height and width at once"  # type: ignore
    over = convolution(module, source)
    if isinstance(over, str):
        return algebra.not_from_convolution(over)
    if other := _other_use(module, mean, source):
        return algebra.used_elsewhere(other)
    projection = mean
    while len(projection.users) == 1 and (projection is mean or projection.target in graph.RESHAPES):
        (projection,) = projection.users
    if projection is mean or projection.target in graph.RESHAPES:
        return algebra.read_by(len(projection.users))
    weight = graph.constant(module, projection.args[1]) if projection.target in PROJECTIONS else None
    if weight is None or projection.args[0] is projection.args[1]:
        return algebra.no_projection(str(projection.target))
    if projection.target is aten.conv2d.default:
        found = convolution(module, projection)
        if isinstance(found, str) or not found.pointwise or found.groups != 1:
            return algebra.no_projection("a convolution that is not a plain 1x1")
    shape, out = graph.spatial(over.node.args[0]), graph.spatial(source)  # type: ignore[arg-type]
    if shape is None or out is None:
        return "height and width are not fixed"
    given = projection.args[2] if len(projection.args) > 2 else None
    own = None if given is None else graph.constant(module, given)
    if given is not None and own is None:
        return "the projection's bias is computed"
    first = _exact(weight).reshape(weight.shape[0], -1)
    return Commuting(mean, over, projection, first, np.zeros(len(first)) if own is None else _exact(own), shape, out)


def _exact(value: Tensor) -> Array:
    array: Array = value.double().cpu().numpy()
    return array


def _other_use(module: fx.GraphModule, mean: fx.Node, source: fx.Node) -> str | None:
    """A reader of the averaged map other than the mean and the scaling by the gate."""
    branches = gate_branches(module)
    for user in source.users:
        scaled = user.target is aten.mul.Tensor and any(
            branches.get(unexpanded(arg)) is mean for arg in user.all_input_nodes if arg is not source
        )
        if user is not mean and not scaled:
            return str(user.target)
    return None
