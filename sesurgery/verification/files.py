"""How two ONNX files of one network differ: in weights or in connections."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.scopes import scope_of

SAME = 1e-5
"""Weights count as equal within this share of their largest value, because folding norms rounds."""


@dataclass(frozen=True)
class FileDifference:
    """Modules with different nodes, in the order of the graph, and different weights, with the number compared."""

    wired: tuple[str, ...]
    weights: tuple[str, ...]
    compared: int


def difference_of(expected: onnx.ModelProto, found: onnx.ModelProto) -> FileDifference:
    """The differences of `found`; both files are exports, so their weights have the network's names."""
    before, after = Dataflow(expected), Dataflow(found)
    shapes_before, shapes_after = _shapes(expected, before), _shapes(found, after)
    gone = Counter(shapes_before)
    gone.subtract(Counter(shapes_after))
    order = [scope for scope, _ in (*shapes_before, *shapes_after)]
    wired = {scope for (scope, _), count in gone.items() if count}
    names = [name for name in before.weights if name in after.weights and "." in name]
    other = [name for name in names if not _same(before.weights[name], after.weights[name])]
    return FileDifference(tuple(scope for scope in dict.fromkeys(order) if scope in wired), tuple(other), len(names))


def _shapes(model: onnx.ModelProto, flow: Dataflow) -> list[tuple[str, str]]:
    """For each node that an output needs, its module and its operation with inputs, independent of value names."""
    alive = _alive(model, flow)
    said = dict.fromkeys(flow.inputs, "input")
    found = []
    for node in flow.nodes:
        if node.output[0] not in alive:
            continue
        scope = scope_of(node) or ""
        for name in node.output:
            said[name] = f"{node.op_type} of {scope}"
        operands = [said.get(name) or _weight(name, flow) for name in node.input]
        attributes = sorted((each.name, str(onnx.helper.get_attribute_value(each))) for each in node.attribute)
        found.append((scope, f"{node.op_type}({', '.join(operands)}) {attributes}"))
    return found


def _alive(model: onnx.ModelProto, flow: Dataflow) -> set[str]:
    """First outputs of the nodes that an output of the network depends on."""
    pending, seen = [value.name for value in model.graph.output], set[str]()
    while pending:
        node: NodeProto | None = flow.producer.get(pending.pop())
        if node is not None and node.output[0] not in seen:
            seen.add(node.output[0])
            pending.extend(node.input)
    return seen


def _weight(name: str, flow: Dataflow) -> str:
    """A named weight by its shape, because its values are compared separately; a constant by its values."""
    array = flow.constant(name) if name else None
    if array is None:
        return name
    if "." in name:
        return f"{name} {array.shape}"
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


def _same(first: onnx.TensorProto, second: onnx.TensorProto) -> bool:
    before, after = numpy_helper.to_array(first), numpy_helper.to_array(second)
    if before.shape != after.shape:
        return False
    if not np.issubdtype(before.dtype, np.floating):
        return bool(np.array_equal(before, after))
    reach = float(np.abs(before).max(initial=0.0))
    return bool(np.abs(before.astype(np.float64) - after).max(initial=0.0) <= SAME * reach)


def site_of(scope: str, modules: Mapping[str, str]) -> str | None:
    """The key of the block in which a module (or a weight, by its name) lies."""
    for key, module in modules.items():
        if scope == module or scope.startswith(f"{module}."):
            return key
    return None
