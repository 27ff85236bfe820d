"""A squeeze moved before the convolution whose output it averages: the ONNX passes' algebra, on the network's graph.

`sesurgery/lowering/passes/squeeze_hoist.py` derives the form for 1x1 convolutions, `squeeze_hoist_spatial.py` the one
with taps and border. In both the convolution folds into the gate's first projection, which then reads x, so that the gate is
known before u = W x + b is: u has no reader but the scaling, and scaling, sum and ReLU can be its epilogue.
"""

from __future__ import annotations

import math

import torch
from torch import fx

from sesurgery.lowering.base import Edit
from sesurgery.lowering.fx import graph
from sesurgery.lowering.fx.gates import Commuting, commuting, squeezes
from sesurgery.lowering.fx.graph import aten


def squeeze_hoist(module: fx.GraphModule) -> tuple[Edit, ...]:
    """Let squeezes average the input of 1x1 convolutions; the graph is changed in place."""
    edits: list[Edit] = []
    moved: set[str] = set()
    while True:
        known, turned_down = len(edits), []
        for squeeze in list(squeezes(module)):
            found = commuting(module, squeeze)
            reason = found if isinstance(found, str) else _not_pointwise(found) or too_large(found)
            if isinstance(found, Commuting) and reason is None:
                moved.add(_hoist(module, found))
                ins, outs = found.shape[0], found.out[0]
                words = f"the squeeze averages {ins} channels before the convolution, not {outs} after it"
                edits.append(Edit(found.where, words, changed=True))
            elif squeeze.name not in moved:
                turned_down.append(Edit(graph.path_of(squeeze), str(reason), changed=False))
        graph.clean(module)
        # x may be the output of a 1x1 convolution itself: then it goes on.
        if len(edits) == known:
            return (*edits, *turned_down)


def squeeze_hoist_spatial(module: fx.GraphModule) -> tuple[Edit, ...]:
    """Let squeezes average every tap of the input of spatial convolutions; the graph is changed in place."""
    edits = []
    for squeeze in list(squeezes(module)):
        found = commuting(module, squeeze)
        reason = found if isinstance(found, str) else _not_spatial(found) or too_large(found)
        if isinstance(found, Commuting) and reason is None:
            kh, kw = _hoist_taps(module, found)
            words = f"the squeeze averages {kh} x {kw} taps of {found.shape[0]} channels before the convolution"
            edits.append(Edit(found.where, words, changed=True))
        else:
            edits.append(Edit(graph.path_of(squeeze), str(reason), changed=False))
    graph.clean(module)
    return tuple(edits)


def _not_pointwise(found: Commuting) -> str | None:
    if found.over.pointwise:
        return None
    return "the convolution is not 1x1 with stride 1 and no border: squeeze_hoist_spatial is for those"


def _not_spatial(found: Commuting) -> str | None:
    if found.over.pointwise:
        return "the convolution is 1x1 with stride 1: squeeze_hoist is for those"
    taps = math.prod(found.over.weight.shape[2:])
    if taps > found.shape[0]:
        return f"{taps} taps of {found.shape[0]} channels: the constant would be larger than the map"
    return None


def too_large(found: Commuting) -> str | None:
    """Why it does not pay to read the convolution's input, or None."""
    ins, outs = math.prod(found.shape), math.prod(found.out)
    if ins <= outs:
        return None
    return f"the convolution's input is larger than its output ({ins} values a sample, not {outs})"


def _hoist(module: fx.GraphModule, found: Commuting) -> str:
    averaged = graph.call(module, found.projection, aten.mean.dim, found.over.node.args[0], [2, 3], True)
    _fold(module, found, averaged, found.weight.flatten(1))
    return averaged.name


def _hoist_taps(module: fx.GraphModule, found: Commuting) -> tuple[int, int]:
    """M = x K^T with K (kh kw, H W) the share of every position in every tap; then W folds over (I, kh kw)."""
    over, (_, height, width), (_, out_height, out_width) = found.over, found.shape, found.out
    kh, kw = over.weight.shape[2:]
    rows = chosen(height, out_height, kh, over.stride[0], over.dilation[0], over.padding[0])
    columns = chosen(width, out_width, kw, over.stride[1], over.dilation[1], over.padding[1])
    positions = out_height * out_width
    share = 2.0 ** -math.ceil(math.log2(positions))
    shares = share * torch.einsum("ih,jw->hwij", rows, columns).reshape(height * width, kh * kw)
    source, before = over.node.args[0], found.projection
    example = found.over.node.args[1].meta["val"]  # type: ignore[union-attr]
    constant = graph.add_constant(module, before, "tap_shares", shares.to(example.dtype))
    flat = graph.call(module, before, aten.flatten.using_ints, source, 2)
    taps = graph.call(module, before, aten.matmul.default, flat, constant)
    averaged = graph.call(module, before, aten.flatten.using_ints, taps, 1)
    for _ in range(2):
        averaged = graph.call(module, before, aten.unsqueeze.default, averaged, -1)
    _fold(module, found, averaged, found.weight.flatten(1) / (positions * share))
    return int(kh), int(kw)


def chosen(size: int, out: int, taps: int, stride: int, dilation: int, pad: int) -> torch.Tensor:
    """Which rows of the input (size) a tap meets with one of its `out` positions: 1, else 0. (taps x size)"""
    rows = torch.arange(out) * stride + torch.arange(taps)[:, None] * dilation - pad
    found = torch.zeros(taps, size, dtype=torch.float64)
    tap, position = torch.nonzero((rows >= 0) & (rows < size), as_tuple=True)
    found[tap, rows[tap, position]] = 1
    return found


def _fold(module: fx.GraphModule, found: Commuting, averaged: fx.Node, weight: torch.Tensor) -> None:
    """Let the projection read `averaged` (N, K, 1, 1) through `weight` (r, K), with W1 b + b1 added."""
    node = found.projection
    name = str(node.args[1].target)  # type: ignore[union-attr]
    dtype = node.args[1].meta["val"].dtype  # type: ignore[union-attr]
    linear = node.target is aten.linear.default
    if linear:
        averaged = graph.call(module, node, aten.flatten.using_ints, averaged, 1)
    weight = weight if linear else weight[:, :, None, None]
    new_weight = graph.add_constant(module, node, f"{name}_hoisted", weight.to(dtype))
    new_bias = graph.add_constant(module, node, f"{name}_hoisted_bias", found.bias.to(dtype))
    node.args = (averaged, new_weight, new_bias)
