"""The means that gates read in a network's graph, and what a convolution must be like for such a mean to pass over it.

The same questions as for ONNX, asked of ATen operations: the answer is the thing, or the reason (a string) why not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, fx

from sesurgery.lowering import algebra
from sesurgery.lowering.algebra import Array, Kernel, Sizes
from sesurgery.lowering.fx import graph
from sesurgery.lowering.fx.graph import aten

POOLS = (aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default)
MAXIMA = (aten.amax.default, aten.adaptive_max_pool2d.default)
PROJECTIONS = (aten.conv2d.default, aten.linear.default)


@dataclass(frozen=True, kw_only=True)
class Convolution(Kernel):
    """A convolution of a network's graph with known weights."""

    node: fx.Node


@dataclass(frozen=True)
class Commuting:
    """A gate whose mean can be taken of a convolution's input: mean -> projection, over u = convolution(x)."""

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


def squeezes(module: fx.GraphModule) -> Iterator[fx.Node]:
    """What averages (or takes the maximum of) a map over height and width and scales a map in the end."""
    for node in module.graph.nodes:
        if node.target in (aten.mean.dim, *POOLS, *MAXIMA) and _over_the_map(node):
            branch = graph.downstream(node)
            if any(user.target is aten.mul.Tensor and user not in branch for part in branch for user in part.users):
                yield node


def _over_the_map(node: fx.Node) -> bool:
    source = node.args[0]
    if not isinstance(source, fx.Node) or len(graph.shape_of(source)) != 4:
        return False
    if node.target in (aten.mean.dim, aten.amax.default):
        dims = node.args[1] if len(node.args) > 1 else None
        return isinstance(dims, list | tuple) and sorted(int(dim) % 4 for dim in dims) == [2, 3]
    return list(node.args[1]) == [1, 1]  # type: ignore[arg-type]


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
    """A squeeze whose mean may move before the convolution that makes what it averages."""
    if mean.target in MAXIMA:
        return "it is a maximum, not a mean"
    source = mean.args[0]
    assert isinstance(source, fx.Node)
    over = convolution(module, source)
    if isinstance(over, str):
        return algebra.not_from_convolution(over)
    if other := _other_use(mean, source):
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
            return algebra.no_projection("a convolution that is no plain 1x1")
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


def _other_use(mean: fx.Node, source: fx.Node) -> str | None:
    """A reader of the averaged map that is neither the mean nor the scaling by the gate."""
    branch = graph.downstream(mean)
    for user in source.users:
        scaled = user.target is aten.mul.Tensor and any(arg in branch for arg in user.args if arg is not source)
        if user is not mean and not scaled:
            return str(user.target)
    return None
