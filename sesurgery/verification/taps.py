"""Where a network is looked into: behind every block and at the end of every stage, in a copy of its ONNX graph.

Never all tensors: a probe keeps a value from being fused away, so that a graph full of them is another network. Behind
a block nothing is fused but the sum, and at the end of a stage nothing at all.

A place is known by the module that it came from, which torch's exporter writes beside each node. Passes and
quantization give values other names; they are then sought by the module again, and of a value that is quantized at once
it is the quantized one that is read, or its integer kernel would be none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
from onnx import NodeProto, helper

from sesurgery.onnxgraph.dataflow import Dataflow
from sesurgery.onnxgraph.gates import gate_branches
from sesurgery.onnxgraph.scopes import scope_of

LOGITS = "logits"
"""The name of the last tap, the network's own output."""


@dataclass(frozen=True)
class Tap:
    """One place: what it is called, the value there, its module, and the block's key where it is one."""

    name: str
    value: str
    scope: str
    site: str | None = None


def taps_of(model: onnx.ModelProto, modules: Mapping[str, str]) -> tuple[Tap, ...]:
    """The places of an exported file in the order of its graph; `modules` are those of the blocks, by their keys.

    The network's first output is the last of them.
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
    """Those of the places that a lowered or quantized file of the same network still has, with its own value names."""
    flow = Dataflow(model)
    found = []
    for tap in taps[:-1]:
        value: str | None = tap.value if tap.value in flow.producer else None
        if value is None and tap.site is not None and (node := _last_of(flow.nodes, tap.scope)) is not None:
            value = node.output[0]
        if value is not None:
            found.append(replace(tap, value=_as_kept(value, flow)))
    # Two places that one pass made into one value are one.
    unique = {tap.value: tap for tap in found}
    return *unique.values(), replace(taps[-1], value=model.graph.output[0].name)


def tapped(model: onnx.ModelProto, taps: Sequence[Tap]) -> onnx.ModelProto:
    """A copy whose outputs are the values at these places beside its own."""
    flow = Dataflow(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in copy.graph.output}
    for tap in taps:
        if tap.value not in known:
            shape = flow.shape(tap.value)
            copy.graph.output.append(helper.make_tensor_value_info(tap.value, flow.dtype(tap.value), shape))
    return copy


def _last_of(nodes: Sequence[NodeProto], module: str) -> NodeProto | None:
    inside = [node for node in nodes if (scope := scope_of(node)) is not None and _within(scope, module)]
    return inside[-1] if inside else None


def _within(scope: str, module: str) -> bool:
    return scope == module or scope.startswith(f"{module}.")


def _stage_ends(flow: Dataflow) -> Iterator[Tap]:
    """The last map of each size on the way, gates aside; stages are numbered by size in order of first appearance."""
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
    """What is left of a value that only a quantizer reads: what the other half of its pair makes of it."""
    kept = value
    for operator in ("QuantizeLinear", "DequantizeLinear"):
        readers = [node for node in flow.nodes if kept in node.input]
        # The quantized value may be read by several halves, all of which make the same of it.
        if not readers or any(node.op_type != operator for node in readers) or (operator[0] == "Q" and readers[1:]):
            return value
        kept = readers[0].output[0]
    return kept
