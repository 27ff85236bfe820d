"""The means that gates read in a network's graph, and what a convolution must be like for such a mean to pass over it.

The same questions as for ONNX, asked of ATen operations: the answer is the thing, or the reason (a string) why not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from sesurgery.lowering.fx import graph
from sesurgery.lowering.fx.graph import aten

POOLS = (aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default)
MAXIMA = (aten.amax.default, aten.adaptive_max_pool2d.default)
PROJECTIONS = (aten.conv2d.default, aten.linear.default)


@dataclass(frozen=True)
class Convolution:
    """A convolution with known weights: W (O, I / groups, kh, kw), b (O), both float64, and its geometry."""

    node: fx.Node
    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def pointwise(self) -> bool:
        """Whether it is 1x1 with stride 1 and no border: a linear map of channels, position by position."""
        return self.weight.shape[2:] == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0)

    @property
    def dense(self) -> Tensor:
        """Its weights as those of one group, (O, I, kh, kw): block diagonal, zeros between groups."""
        outs, ins = self.weight.shape[:2]
        dense = self.weight.new_zeros(outs, ins * self.groups, *self.weight.shape[2:])
        for group in range(self.groups):
            rows = slice(group * outs // self.groups, (group + 1) * outs // self.groups)
            dense[rows, group * ins : (group + 1) * ins] = self.weight[rows]
        return dense


@dataclass(frozen=True)
class Commuting:
    """A gate whose mean can be taken of a convolution's input: mean -> projection, over u = convolution(x)."""

    mean: fx.Node
    over: Convolution
    projection: fx.Node
    shape: tuple[int, int, int]
    """C, H, W of x."""
    out: tuple[int, int, int]
    weight: Tensor
    """W1 W as (r, I, kh, kw), float64."""
    bias: Tensor
    """W1 b + b1, float64."""

    @property
    def where(self) -> str:
        return f"{graph.path_of(self.projection)} over {graph.path_of(self.over.node)}"


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
    stride, padding, dilation = ((int(pair[0]), int(pair[-1])) for pair in given[3:6])
    zeros = torch.zeros(weight.shape[0], dtype=torch.float64, device=weight.device)
    return Convolution(
        node,
        weight.double(),
        zeros if bias is None else bias.double(),
        stride,
        padding,
        dilation,
        int(given[6]),
    )


def commuting(module: fx.GraphModule, mean: fx.Node) -> Commuting | str:
    """A squeeze whose mean may move before the convolution that makes what it averages."""
    if mean.target in MAXIMA:
        return "it is a maximum, not a mean"
    source = mean.args[0]
    assert isinstance(source, fx.Node)
    over = convolution(module, source)
    if isinstance(over, str):
        return f"what it averages comes from {over}, not straight from a convolution: the mean does not pass over it"
    if other := _other_use(mean, source):
        return f"the convolution's output has another use than the gate, {other}: it has to be written all the same"
    projection = mean
    while len(projection.users) == 1 and (projection is mean or projection.target in graph.RESHAPES):
        (projection,) = projection.users
    if projection is mean or projection.target in graph.RESHAPES:
        return f"{len(projection.users)} nodes read the mean: a convolution folds into one projection only"
    weight = graph.constant(module, projection.args[1]) if projection.target in PROJECTIONS else None
    if weight is None or projection.args[0] is projection.args[1]:
        return f"the gate goes on with {projection.target}: there is no projection for the convolution to fold into"
    if projection.target is aten.conv2d.default:
        found = convolution(module, projection)
        if isinstance(found, str) or not found.pointwise or found.groups != 1:
            return "the gate goes on with a convolution that is no plain 1x1"
    shape, out = graph.spatial(over.node.args[0]), graph.spatial(source)  # type: ignore[arg-type]
    if shape is None or out is None:
        return "height and width are not fixed"
    given = projection.args[2] if len(projection.args) > 2 else None
    own = None if given is None else graph.constant(module, given)
    if given is not None and own is None:
        return "the projection's bias is computed"
    first = weight.double().reshape(weight.shape[0], -1)
    bias = first @ over.bias + (0.0 if own is None else own.double())
    return Commuting(mean, over, projection, shape, out, torch.einsum("ro,oikl->rikl", first, over.dense), bias)


def _other_use(mean: fx.Node, source: fx.Node) -> str | None:
    """A reader of the averaged map that is neither the mean nor the scaling by the gate."""
    branch = graph.downstream(mean)
    for user in source.users:
        scaled = user.target is aten.mul.Tensor and any(arg in branch for arg in user.args if arg is not source)
        if user is not mean and not scaled:
            return str(user.target)
    return None
