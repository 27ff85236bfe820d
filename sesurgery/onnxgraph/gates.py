"""The gates of attention blocks in an ONNX graph.

A gate is found by taint. Every squeeze (a spatial mean, sum, maximum or global pool in any form, or the sums that
squeeze_hoist_spatial writes) taints its output; a node is tainted if all its data operands are. The first `Mul` of
tainted and untainted data is the scaling of a feature map by a gate: everything tainted above its tainted operand is
the gate branch. So `x * relu6(x + 3) / 6` inside a branch does not end it (both operands are tainted), the sum of an
average and a maximum branch (CBAM) is one gate, and the pool before a classifier is not a gate, because nothing is
scaled by it. A `Conv` of untainted data whose weights are a constant times tainted data counts as a scaling too.

`graph/gates.py` is the same definition for the neutral graph, `lowering/fx/gates.py` for graphs of ATen operations.
"""

from __future__ import annotations

from onnx import NodeProto

from sesurgery.onnxgraph.dataflow import Dataflow, Shape
from sesurgery.onnxgraph.nodes import attributes

SQUEEZES = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceL1", "ReduceL2", "AveragePool", "MaxPool", "Einsum"}
    | {"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "Reshape"}
)
# They only expand the gate over the map; the Mul that reads them is the scaling.
BROADCASTS = frozenset({"Expand", "Tile", "Resize", "Upsample"})


def gate_branches(flow: Dataflow) -> dict[str, str]:
    """Every node of every gate branch, including the squeeze, by its first output, with the output of its squeeze."""
    squeeze_of: dict[str, str] = {}
    branches: dict[str, str] = {}
    for node in flow.nodes:
        operands = [name for name in node.input if flow.is_data(name)]
        tainted = [name for name in operands if name in squeeze_of]
        if len(tainted) < len(operands) and (node.op_type == "Mul" or _weights_are_scaled(node, squeeze_of, flow)):
            for name in tainted:
                _collect(name, squeeze_of, branches, flow)
        elif tainted and len(tainted) == len(operands):
            squeeze_of.update((name, squeeze_of[tainted[0]]) for name in node.output if flow.is_data(name))
        elif is_squeeze(node, flow):
            squeeze_of[node.output[0]] = node.output[0]
    return branches


def is_squeeze(node: NodeProto, flow: Dataflow) -> bool:
    """Whether the node reduces each channel's map to one value."""
    if node.op_type not in SQUEEZES:
        return False
    if node.op_type.startswith("Global"):
        return True
    before, after = flow.shape(node.input[0]), flow.shape(node.output[0])
    if before is None:
        return False
    if node.op_type.startswith("Reduce"):
        return _over_the_map(flow.axes(node), before)
    if node.op_type == "Einsum":
        # `nchw->nc` and the like: two letters that stand behind one another are summed away.
        given, _, left = attributes(node)["equation"].decode().replace(" ", "").partition("->")
        return len(node.input) == 1 and len(given) == 4 and left == given[:2]
    if node.op_type == "Reshape" and not _adds_positions(flow.producer.get(node.input[0]), flow):
        return False
    return after is not None and len(before) in (3, 4) and len(after) == 4 and after[2:] == (1, 1) != before[2:]


def _over_the_map(axes: tuple[int, ...] | None, shape: Shape) -> bool:
    """Whether a reduction gives one value per channel: channels first or last, maps flattened, or the second axis."""
    if len(shape) == 3:
        return axes == (2,)
    # `mean(3, keepdim=True).mean(2, keepdim=True)`: the other axis has one position already.
    second = [(axis,) for axis, other in ((2, 3), (3, 2)) if len(shape) == 4 and shape[other] == 1]
    return len(shape) == 4 and axes in ((2, 3), (1, 2), *second)


def _weights_are_scaled(node: NodeProto, squeeze_of: dict[str, str], flow: Dataflow) -> bool:
    """Whether a gate scales the weights of a convolution instead of its input, as gate_weights writes it."""
    if node.op_type != "Conv" or node.input[0] in squeeze_of or node.input[1] not in squeeze_of:
        return False
    product = flow.producer[node.input[1]]
    if product.op_type == "Cast":
        product = flow.producer[product.input[0]]
    return product.op_type == "Mul" and any(flow.constant(name) is not None for name in product.input)


def _collect(value: str, squeeze_of: dict[str, str], branches: dict[str, str], flow: Dataflow) -> None:
    pending = [value]
    while pending:
        name = pending.pop()
        node = flow.producer[name]
        if name not in squeeze_of or node.output[0] in branches:
            continue
        if node.op_type not in BROADCASTS:
            branches[node.output[0]] = squeeze_of[name]
        if squeeze_of[name] != name:
            pending.extend(operand for operand in node.input if operand in squeeze_of)


def _adds_positions(node: NodeProto | None, flow: Dataflow) -> bool:
    """Whether a node sums a constant times a flattened map over its positions, as squeeze_hoist_spatial writes it."""
    if node is not None and node.op_type == "Cast":
        return _adds_positions(flow.producer.get(node.input[0]), flow)
    if node is not None and node.op_type == "MatMul":
        return flow.constant(node.input[0]) is not None
    return node is not None and node.op_type == "ReduceMean" and flow.axes(node) == (2,) and _masked(node, flow)


def _masked(node: NodeProto, flow: Dataflow) -> bool:
    """Whether a node reads a value times a constant."""
    product = flow.producer.get(node.input[0])
    if product is not None and product.op_type == "Cast":
        product = flow.producer.get(product.input[0])
    return product is not None and product.op_type == "Mul" and flow.constant(product.input[1]) is not None
