"""The gates of attention blocks in a graph of ATen operations.

The same definition as in `onnxgraph/gates.py`: a squeeze reduces each channel's map to one value and taints it, an
operation is tainted if all the data it reads is tainted, and the product of tainted and untainted data is the scaling
of a map by a gate.
"""

from __future__ import annotations

from torch import Tensor, fx

from sesurgery.lowering.fx import graph
from sesurgery.lowering.fx.graph import aten

POOLS = (aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default, aten.avg_pool2d.default)
MAXIMA = (aten.amax.default, aten.adaptive_max_pool2d.default, aten.max_pool2d.default)
SUMS = (aten.sum.dim_IntList, aten.einsum.default)
SQUEEZES = (aten.mean.dim, *POOLS, *MAXIMA, *SUMS)
BROADCASTS = (aten.expand.default, aten.repeat.default, aten.upsample_nearest2d.vec)


def gate_branches(module: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Every operation of every gate branch, including the squeeze, with its squeeze, in the order of the graph."""
    squeeze_of: dict[fx.Node, fx.Node] = {}
    found: dict[fx.Node, fx.Node] = {}
    data: set[fx.Node] = set()
    for node in module.graph.nodes:
        operands = [value for value in node.all_input_nodes if value in data]
        if node.op == "placeholder" or (operands and _is_tensor(node)):
            data.add(node)
        tainted = [value for value in operands if value in squeeze_of]
        if len(tainted) < len(operands) and node.target is aten.mul.Tensor:
            for value in tainted:
                _collect(value, squeeze_of, found)
        elif tainted and len(tainted) == len(operands):
            squeeze_of[node] = squeeze_of[tainted[0]]
        elif _is_squeeze(node, data):
            squeeze_of[node] = node
    return {node: found[node] for node in module.graph.nodes if node in found}


def squeezes(module: fx.GraphModule) -> tuple[fx.Node, ...]:
    """The squeezes of all gates, in the order of the graph."""
    return tuple(node for node, squeeze in gate_branches(module).items() if node is squeeze)


def one_position(node: fx.Node) -> bool:
    """Whether a value has no height and width: (N, C), (N, C, 1, 1), or channels in a row, (N, 1, C)."""
    dims = graph.shape_of(node)
    return len(dims) == 2 or (len(dims) == 3 and 1 in dims[1:]) or (len(dims) == 4 and dims[2:] == (1, 1))


def _is_squeeze(node: fx.Node, data: set[fx.Node]) -> bool:
    """Whether the operation reduces each channel's map to one value; a value with one position is not a map."""
    if node.op != "call_function" or not one_position(node) or one_position(source := node.all_input_nodes[0]):
        return False
    return node.target in SQUEEZES or _adds_positions(node, data) or _adds_positions(source, data)


def _adds_positions(node: fx.Node, data: set[fx.Node]) -> bool:
    """Whether an operation is a flattened map times a constant, as squeeze_hoist_spatial writes the means of taps."""
    return node.target is aten.matmul.default and node.all_input_nodes[-1] not in data


def unexpanded(node: fx.Node) -> fx.Node:
    """The value before it was expanded over a map, by `expand_as` for example."""
    while node.target in BROADCASTS:
        node = node.all_input_nodes[0]
    return node


def _collect(value: fx.Node, squeeze_of: dict[fx.Node, fx.Node], found: dict[fx.Node, fx.Node]) -> None:
    pending = [value]
    while pending:
        node = pending.pop()
        if node in found or node not in squeeze_of:
            continue
        if node.target not in BROADCASTS:
            found[node] = squeeze_of[node]
        if squeeze_of[node] is not node:
            pending += node.all_input_nodes


def _is_tensor(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor | tuple | list)
