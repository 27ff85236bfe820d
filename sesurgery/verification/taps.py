"""The places where a network is measured: after every block and at the end of every stage, in a copy of its ONNX graph.

Not all tensors are measured, because an additional output prevents a fusion, and a graph with many of them runs
differently. After a block only the sum would be fused, and at the end of a stage nothing.

A place is identified by its module, which torch's exporter writes beside each node. Passes and quantization rename
values; these are then found by the module again. If a value is quantized directly, the quantized value is read, because
reading the float value would prevent an integer kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
from onnx import NodeProto

from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.gates import gate_branches
from sesurgery.onnxgraph.scopes import scope_of

LOGITS = "logits"
"""The name of the last tap, the network's own output."""


@dataclass(frozen=True)
class Tap:
    """One place: its name, the value there, its module, and the block's key if it is a block."""

    name: str
    value: str
    scope: str
    site: str | None = None


def taps_of(model: onnx.ModelProto, modules: Mapping[str, str]) -> tuple[Tap, ...]:
    """The places of an exported file in the order of its graph; `modules` are the blocks' module paths by key.

    The last place is the network's first output.
    """
    flow = Dataflow(model)
    order = {node.output[0]: position for position, node in enumerate(flow.nodes)}
    blocks = [
        Tap(key, node.output[0], module, key)
        for key, module in modules.items()
        if (node := _last_of(flow.nodes, module)) is not None
    ]
    taken = {tap.value for tap in blocks}
    stages = [tap for tap in _stage_ends(flow) if tap.value not in taken]
    ends = {value.name for value in model.graph.output}
    inner = sorted((tap for tap in (*blocks, *stages) if tap.value not in ends), key=lambda tap: order[tap.value])
    return *inner, Tap(LOGITS, model.graph.output[0].name, "")


def found_in(model: onnx.ModelProto, taps: Sequence[Tap]) -> tuple[Tap, ...]:
    """The places that a lowered or quantized file of the same network still has, with its own value names."""
    flow = Dataflow(model)
    found = []
    for tap in taps[:-1]:
        value: str | None = tap.value if tap.value in flow.producer else None
        if value is None and tap.site is not None and (node := _last_of(flow.nodes, tap.scope)) is not None:
            value = node.output[0]
        if value is not None:
            found.append(replace(tap, value=_as_kept(value, flow)))
    # A pass can merge two places into one value.
    unique = {tap.value: tap for tap in found}
    return *unique.values(), replace(taps[-1], value=model.graph.output[0].name)


def _last_of(nodes: Sequence[NodeProto], module: str) -> NodeProto | None:
    inside = [node for node in nodes if (scope := scope_of(node)) is not None and _within(scope, module)]
    return inside[-1] if inside else None


def _within(scope: str, module: str) -> bool:
    return scope == module or scope.startswith(f"{module}.")


def _stage_ends(flow: Dataflow) -> Iterator[Tap]:
    """The last map of each size, without gates; stages are numbered by size in order of first appearance."""
    gates = gate_branches(flow)
    last: dict[tuple[int, ...], NodeProto] = {}
    for node in flow.nodes:
        shape = flow.shape(node.output[0])
        if shape is None or len(shape) != 4 or node.output[0] in gates or not flow.is_data(node.output[0]):
            continue
        size = tuple(side for side in shape[2:] if isinstance(side, int))
        if len(size) == 2 and max(size) > 1:
            last[size] = node
    for number, node in enumerate(last.values(), start=1):
        scope = scope_of(node) or node.name
        yield Tap(f"end of stage {number} ({scope})", node.output[0], scope)


def _as_kept(value: str, flow: Dataflow) -> str:
    """For a value that only a quantizer reads, the output of its DequantizeLinear; else the value itself."""
    kept = value
    for operator in ("QuantizeLinear", "DequantizeLinear"):
        readers = [node for node in flow.nodes if kept in node.input]
        # Several DequantizeLinear nodes may read the quantized value; all give the same result.
        if not readers or any(node.op_type != operator for node in readers) or (operator[0] == "Q" and readers[1:]):
            return value
        kept = readers[0].output[0]
    return kept
