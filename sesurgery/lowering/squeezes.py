"""The means that gates read, and which of them can be moved before a convolution.

Functions return the result, or a string with the reason why there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto

from sesurgery.lowering import algebra
from sesurgery.lowering.algebra import Array, Kernel, Sizes
from sesurgery.lowering.base import one_over_another
from sesurgery.lowering.rewriting import Rewrite
from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.gates import gate_branches
from sesurgery.onnxgraph.nodes import attributes

NOT_MEANS = {
    "ReduceMax": "a maximum",
    "GlobalMaxPool": "a maximum",
    "MaxPool": "a maximum",
    "ReduceSum": "a sum",
    "ReduceL1": "a norm",
    "ReduceL2": "a norm",
    "GlobalLpPool": "a norm",
    "Einsum": "a sum",
    "Reshape": "every tap of a convolution (hoisted already)",
}


@dataclass(frozen=True)
class Mean:
    """A mean over the height and width of a map in NCHW."""

    node: NodeProto
    keeps: bool
    """Whether its result is (N, C, 1, 1), or (N, C)."""

    @property
    def source(self) -> str:
        return str(self.node.input[0])

    @property
    def result(self) -> str:
        return str(self.node.output[0])


@dataclass(frozen=True, kw_only=True)
class Convolution(Kernel):
    """A convolution of an ONNX graph with constant weights."""

    node: NodeProto


def squeezes(flow: Dataflow) -> tuple[NodeProto, ...]:
    """The squeezes of all gates, in the order of the graph."""
    branches = gate_branches(flow)
    return tuple(node for node in flow.nodes if node.output and branches.get(node.output[0]) == node.output[0])


def mean(node: NodeProto, flow: Dataflow) -> Mean | str:
    """A squeeze as a mean in NCHW."""
    if node.op_type in NOT_MEANS:
        return f"it is {NOT_MEANS[node.op_type]}, not a mean"
    shape = flow.shape(node.input[0]) or ()
    if len(shape) != 4:
        return f"it reads a value of rank {len(shape)}, not a map (N, C, H, W)"
    given = attributes(node)
    if node.op_type == "ReduceMean":
        if flow.axes(node) != (2, 3):
            axes = flow.axes(node) or ()
            how = "channels last already" if axes == (1, 2) else "one axis after the other"
            return f"its axes are {list(axes)}: it is taken {how}"
        # As runtimes read it: any other number than 1 drops the axes.
        return Mean(node, given.get("keepdims", 1) == 1)
    if node.op_type == "AveragePool" and (
        tuple(given["kernel_shape"]) != shape[2:] or any(given.get("pads", ())) or given.get("auto_pad", b"") != b""
    ):
        return "it is a pool whose window is not exactly the map"
    return Mean(node, keeps=True)


def convolution(node: NodeProto | None, flow: Dataflow) -> Convolution | str:
    """A node as a 2-D convolution with constant weights."""
    if node is None:
        return "a graph input"
    if node.op_type != "Conv":
        return node.op_type
    weight = flow.constant(node.input[1])
    bias = flow.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if weight is None or (bias is None and len(node.input) > 2 and node.input[2]):
        return "a convolution with computed weights"
    if weight.ndim != 4:
        return f"a convolution in {weight.ndim - 2} dimension{'s' if weight.ndim > 3 else ''}"
    given = attributes(node)
    strides, dilations = tuple(given.get("strides", (1, 1))), tuple(given.get("dilations", (1, 1)))
    extents = tuple((size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilations, strict=True))
    pads = _pads(given, extents, strides, (flow.shape(node.input[0]) or ())[2:])
    if isinstance(pads, str):
        return pads
    groups = int(given.get("group", 1))
    if groups < 1 or weight.shape[0] % groups:
        return f"a convolution of {weight.shape[0]} channels in {groups} groups"
    shape = flow.shape(node.input[0]) or ()
    channels = shape[1] if len(shape) > 1 else None
    if isinstance(channels, int) and channels != weight.shape[1] * groups:
        return f"a convolution whose weights are for {weight.shape[1] * groups} channels, of a map with {channels}"
    if tuple(given.get("kernel_shape", weight.shape[2:])) != weight.shape[2:]:
        return f"a convolution of {list(given['kernel_shape'])} whose weights are {list(weight.shape[2:])}"
    zeros = np.zeros(weight.shape[0])
    return Convolution(
        node=node,
        weight=weight.astype(np.float64),
        bias=zeros if bias is None else bias.astype(np.float64),
        strides=strides,
        dilations=dilations,
        pads=pads,
        groups=groups,
    )


def _pads(
    given: dict[str, Any], extents: tuple[int, ...], strides: tuple[int, ...], size: tuple[int | str | None, ...]
) -> tuple[int, int, int, int] | str:
    mode = given.get("auto_pad", b"NOTSET")
    if mode in (b"NOTSET", b"", b"VALID"):
        pads = given.get("pads", (0, 0, 0, 0)) if mode != b"VALID" else (0, 0, 0, 0)
        return tuple(pads)
    known = [length for length in size if isinstance(length, int)]
    if len(known) != 2:
        return "a convolution whose padding depends on an unknown height and width"
    begins, ends = [], []
    for length, extent, stride in zip(known, extents, strides, strict=True):
        missing = max(0, (-(-length // stride) - 1) * stride + extent - length)
        smaller = missing // 2
        begins.append(smaller if mode == b"SAME_UPPER" else missing - smaller)
        ends.append(missing - begins[-1])
    return begins[0], begins[1], ends[0], ends[1]


@dataclass(frozen=True)
class Commuting:
    """A gate whose mean can be moved before a convolution: mean -> projection, over u = convolution(x)."""

    mean: Mean
    over: Convolution
    projection: Convolution
    shape: Sizes
    out: Sizes

    @property
    def nodes(self) -> tuple[str, str]:
        """The names of the mean and of the convolution before it."""
        return self.mean.node.name, self.over.node.name

    @property
    def where(self) -> str:
        return one_over_another(*self.nodes)

    @property
    def folded(self) -> tuple[Array, Array]:
        """W1 W as (r, I, kh, kw), and W1 b + b1."""
        return algebra.folded(self.projection.weight[:, :, 0, 0], self.projection.bias, self.over)


def commuting(squeeze: NodeProto, rewrite: Rewrite) -> Commuting | str:
    """A squeeze with the convolution that its mean can be moved before."""
    flow = rewrite.flow
    found = mean(squeeze, flow)
    if isinstance(found, str):
        return found
    over = convolution(flow.producer.get(found.source), flow)
    if isinstance(over, str):
        return algebra.not_from_convolution(over)
    if other := _other_uses(found, rewrite):
        return algebra.used_elsewhere(other)
    if not found.keeps:
        return "its result is (N, C), not (N, C, 1, 1): linear_to_conv comes first"
    readers = rewrite.uses.get(found.result, [])
    if len(readers) != 1 or found.result in rewrite.outputs:
        return algebra.read_by(len(readers))
    projection = convolution(readers[0], flow)
    if isinstance(projection, str) or not projection.pointwise or projection.groups != 1:
        what = projection if isinstance(projection, str) else "a convolution that is not a plain 1x1"
        return algebra.no_projection(what)
    return Commuting(found, over, projection, _sizes(over.node.input[0], flow), _sizes(found.source, flow))


def _other_uses(found: Mean, rewrite: Rewrite) -> str | None:
    """A reader of the averaged map other than the mean and the scaling by the gate."""
    if found.source in rewrite.outputs:
        return "as an output of the network"
    branches = gate_branches(rewrite.flow)
    for node in rewrite.uses[found.source]:
        scaled = node.op_type == "Mul" and any(
            comes_from_gate(name, rewrite.flow, branches, found.result) for name in node.input if name != found.source
        )
        if node.output[0] != found.result and not scaled:
            return f"{node.op_type} {node.name!r}"
    return None


def comes_from_gate(value: str, flow: Dataflow, branches: dict[str, str], squeeze: str | None = None) -> bool:
    """Whether a value is the gate of a squeeze (by default of any), possibly expanded over the map."""
    node = flow.producer.get(value)
    while node is not None and node.output[0] not in branches and node.op_type in ("Expand", "Identity"):
        node = flow.producer.get(node.input[0])
    return node is not None and node.output[0] in branches and squeeze in (None, branches[node.output[0]])


def scalings(flow: Dataflow) -> Iterator[tuple[NodeProto, str, str]]:
    """All products of a map and a gate, in the order of the graph: node, map, gate."""
    branches = gate_branches(flow)
    for node in flow.nodes:
        if node.op_type == "Mul" and node.output[0] not in branches:
            for name, gate in zip(node.input, reversed(node.input), strict=True):
                if comes_from_gate(gate, flow, branches):
                    yield node, name, gate
                    break


def _sizes(value: str, flow: Dataflow) -> Sizes:
    _, channels, height, width = (dim if isinstance(dim, int) else 0 for dim in flow.shape(value) or (0,) * 4)
    return channels, height, width
